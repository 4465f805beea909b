"""The main job in small: tune, prove, report, check, with a tiny model and real processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from twofold.evidence import check, read_evidence
from twofold.measure.tuned import read_tuned

MODEL = """
layers = 1
hidden = 32
heads = 2
kv_heads = 2
ffn = 64
vocab = 256
max_seq_len = 32
"""
EXPERIMENT = f"""
name = "tiny"
tuned = "tiny.tuned.json"
[workload]
text = "text"
seq_len = 32
[quality]
margin = 0.3
evaluation_tokens = 2048
[budget]
blocks = 3
wall = "1min"
[tuning]
baseline = "naive"
baseline_s = 0.5
seeds = [101]
[models.plain]
{MODEL}
[models.modern]
{MODEL}
norm = "rmsnorm"
activation = "relu2"
position = "rotary"
qk_norm = true
bias = false
[recipes.adamw]
learning_rate = 4e-3
global_batch = 4
[recipes.muon]
optimizer = "muon"
learning_rate = 0.02
adam_learning_rate = 0.02
orthogonal_steps = 3
global_batch = 4
[arms.naive]
candidates = [{{ model = "plain", recipe = "adamw" }}]
[arms.twofold]
maths = "planned"
candidates = [{{ model = "modern", recipe = "muon" }}]
tuning_s = 0.4
[arms.same-maths]
maths = "planned"
as_arm = "naive"
fixed_only = true
[[comparisons]]
kind = "same maths"
arm = "same-maths"
baseline = "naive"
[[comparisons]]
kind = "same loss"
arm = "twofold"
baseline = "naive"
"""


def twofold(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "twofold.cli", *words],
        cwd=folder,
        env=os.environ | {"TWOFOLD_HOME": str(folder / "home")},
        capture_output=True,
        text=True,
        timeout=900,
    )


def write_text(folder: Path) -> None:
    folder.mkdir()
    for index in range(400):
        lines = [f"value_{index}_{i} = {index} * {i} + {i % 7}" for i in range(50)]
        (folder / f"{index}.txt").write_text("\n".join(lines))


@pytest.mark.verify
def test_from_tuning_to_checked_evidence(tmp_path: Path) -> None:
    write_text(tmp_path / "text")
    (tmp_path / "tiny.toml").write_text(EXPERIMENT)
    assert twofold("prove", "tiny.toml", folder=tmp_path).returncode == 2, "nothing is tuned yet"

    done = twofold("prove", "tiny.toml", "--retune", "--json", folder=tmp_path)
    assert done.returncode in (0, 1), done.stderr
    said: dict[str, Any] = json.loads(done.stdout)

    tuned = read_tuned(tmp_path / "tiny.tuned.json")
    for arm in tuned.arms.values():
        for search in arm.searches:
            rates = {trial.learning_rate for trial in search.trials}
            assert min(rates) < search.learning_rate < max(rates)

    evidence = read_evidence(tmp_path / said["evidence"])
    assert check(tmp_path / said["evidence"]) == []
    assert {sample.arm for sample in evidence.samples} == {"naive", "twofold", "same-maths"}
    losses = {s.arm: s.test_loss for s in evidence.samples if s.fixed and s.block == 0}
    assert losses["naive"] == pytest.approx(losses["same-maths"], abs=1e-3)
    for result in said["results"]:
        assert result["fixed"]["low"] <= result["fixed"]["value"] <= result["fixed"]["high"]
    assert all(arm.prediction is not None for arm in evidence.arms)
    assert "<html" in (tmp_path / said["report"]).read_text()
    assert (tmp_path / "runs" / "tiny.ledger.jsonl").read_text().count('"finished"') == 9
