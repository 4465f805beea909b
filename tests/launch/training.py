"""Real training of a tiny model by `twofold run`, in processes that a test can kill."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.fleets import plain_fleet
from twofold.document import make_document, write_plan
from twofold.model import Model
from twofold.plan import Plan
from twofold.workload import Recipe, Train

GLOBAL_BATCH, SEQ_LEN = 6, 64
EVERY = "400ms"
MODEL = Model(
    name="tiny", layers=2, hidden=32, heads=2, kv_heads=2, ffn=64, vocab=256, max_seq_len=64,
    norm="rmsnorm", activation="relu2", position="rotary", qk_norm=True, bias=False,
    tied_embeddings=False, value_embeddings=0,
)  # fmt: skip
Process = subprocess.Popen[str]
STARTED: list[Process] = []
"""Ended after each test, whatever became of it."""


def make_run(folder: Path, text: str, *, ranks: int = 2, steps: int) -> Path:
    """A run folder that holds nothing but its plan."""
    document = make_document(
        model=MODEL,
        workload=Train(
            text=text,
            tokens=steps * GLOBAL_BATCH * SEQ_LEN,
            seq_len=SEQ_LEN,
            recipe=Recipe(learning_rate=2e-3, global_batch=GLOBAL_BATCH),
        ),
        fleet=plain_fleet(),
        plan=Plan(micro_batch=GLOBAL_BATCH, data_degree=ranks),
        estimate=None,
        seed=7,
        twofold_version="test",
    )
    write_plan(document, folder / "plan.json")
    return folder


def twofold_run(folder: Path, *options: str, every: str = EVERY, on: Sequence[str] = ()) -> Process:
    """`on` are words before the command, which say where it runs."""
    words = [sys.executable, "-m", "twofold.cli", "run", str(folder)]
    process = subprocess.Popen(
        [*on, *words, "--checkpoint-every", every, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    STARTED.append(process)
    return process


def succeed(process: Process) -> None:
    said, error = process.communicate(timeout=900)
    assert process.returncode == 0, said + error
