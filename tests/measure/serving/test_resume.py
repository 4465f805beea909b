"""A proof of serving on real servers, interrupted by Ctrl-C and resumed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from twofold.evidence.serving.check import check_serving
from twofold.evidence.serving.files import read_serving_evidence

EXPERIMENT = """
name = "resumed"
kind = "serving"
weights = "random"

[model]
layers = 1
hidden = 32
heads = 2
kv_heads = 2
ffn = 64
vocab = 256
max_seq_len = 128

[workload]
input = { mean = 24, least = 8, most = 48 }
output = { mean = 4, least = 2, most = 6 }
requests = 6
warmup_requests = 1
seconds = 0.3

[targets]
times_unloaded = { middle = 8.0 }

[quality]
prompts = 2
tokens = 4

[tuning]
threads = [1]

[budget]
blocks = 3
rates = 2

[arms.static]
plan = { batching = "static", max_num_seqs = 4, chunked_prefill = false, precision = "fp32", threads = 1 }

[arms.continuous]
plan = { max_num_seqs = 16, max_batched_tokens = 256, precision = "fp32", threads = 1 }

[[comparisons]]
arm = "continuous"
baseline = "static"
"""  # noqa: E501


@pytest.mark.verify
def test_a_proof_that_is_interrupted_goes_on_where_it_was(tmp_path: Path) -> None:
    (tmp_path / "resumed.toml").write_text(EXPERIMENT)
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    command = [sys.executable, "-m", "twofold", "prove"]
    proof = subprocess.Popen(
        [*command, "resumed.toml"],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    until = time.monotonic() + 240
    while not (kept := list(tmp_path.glob("runs/*/stretches.jsonl"))):
        assert proof.poll() is None, proof.stderr and proof.stderr.read()
        assert time.monotonic() < until
        time.sleep(0.05)
    proof.send_signal(signal.SIGINT)
    _, said = proof.communicate(timeout=60)
    assert proof.returncode == 130, said
    assert "--resume" in said
    folder = kept[0].parent
    assert not (folder / "evidence.json").exists()
    before = kept[0].read_text().splitlines()

    again = subprocess.run(
        [*command, "--resume", str(folder)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert again.returncode in (0, 1), again.stderr
    evidence, untouched = read_serving_evidence(folder / "evidence.json")
    assert untouched
    assert {s.block for s in evidence.stretches if s.kind == "rate"} == {0, 1, 2}
    kept_of_first = [s for s in map(json.loads, before) if s["block"] == 0]
    assert len([s for s in evidence.stretches if s.block == 0]) == len(kept_of_first)
    assert not check_serving(folder / "evidence.json")
