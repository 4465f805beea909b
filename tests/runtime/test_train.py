"""The runtime as a user meets it: real processes, same curves, nothing lost."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from tests.fleets import plain_fleet
from twofold.document import make_document, write_plan
from twofold.model import Model
from twofold.plan import Plan
from twofold.workload import Recipe, Train

MODEL = Model(
    name="tiny", layers=2, hidden=32, heads=2, kv_heads=2, ffn=64, vocab=256, max_seq_len=64,
    norm="rmsnorm", activation="relu2", position="rotary", qk_norm=True, bias=False,
    tied_embeddings=False, value_embeddings=1,
)  # fmt: skip
MUON = Recipe(optimizer="muon", learning_rate=0.02, adam_learning_rate=0.01, global_batch=4)
ADAMW = Recipe(learning_rate=2e-3, global_batch=4)
PLAN = Plan(micro_batch=4, threads=1, orthogonal_precision="fp32")


def written(
    folder: Path, text: str, *, recipe: Recipe = MUON, steps: int = 30, **plan: Any
) -> Path:
    document = make_document(
        model=MODEL,
        workload=Train(text=text, tokens=steps * 4 * 64, seq_len=64, recipe=recipe),
        fleet=plain_fleet(),
        plan=replace(PLAN, **plan),
        estimate=None,
        seed=7,
        twofold_version="test",
    )
    write_plan(document, folder / "plan.json")
    return folder / "plan.json"


def command(*plans: Path, options: tuple[str, ...] = ()) -> list[str]:
    return [sys.executable, "-m", "twofold.runtime.train", *map(str, plans), *options]


def curve(folder: Path) -> list[tuple[int, float]]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [(row["step"], row["loss"]) for row in rows if row["event"] == "step"]


@pytest.mark.slow
@pytest.mark.parametrize("recipe", [ADAMW, MUON], ids=["adamw", "muon"])
def test_the_same_seed_gives_the_same_curve_bit_by_bit(
    tmp_path: Path, text: str, recipe: Recipe
) -> None:
    plans = [written(tmp_path / name, text, recipe=recipe, threads=2) for name in "ab"]
    for plan in plans:
        subprocess.run(command(plan), check=True)
    assert curve(tmp_path / "a") == curve(tmp_path / "b")
    assert curve(tmp_path / "a")[-1][1] < 0.8 * curve(tmp_path / "a")[0][1]


@pytest.mark.slow
@pytest.mark.parametrize("recipe", [ADAMW, MUON], ids=["adamw", "muon"])
def test_killed_and_resumed_is_the_same_curve(tmp_path: Path, text: str, recipe: Recipe) -> None:
    steps = 400
    whole = written(tmp_path / "whole", text, recipe=recipe, steps=steps)
    killed = written(tmp_path / "killed", text, recipe=recipe, steps=steps)
    often = ("--checkpoint-every-s", "0.2")
    subprocess.run(command(whole), check=True)
    process = subprocess.Popen(command(killed, options=often))
    checkpoints = tmp_path / "killed" / "checkpoints"
    wait_for(lambda: len(list(checkpoints.glob("step-*"))) > 0)
    process.send_signal(signal.SIGKILL)
    process.wait()
    reached = curve(tmp_path / "killed")
    assert 0 < len(reached) < steps
    subprocess.run(command(killed, options=often), check=True)
    assert curve(tmp_path / "killed") == curve(tmp_path / "whole")


@pytest.mark.slow
def test_interrupt_saves_and_says_so(tmp_path: Path, text: str) -> None:
    plan = written(tmp_path / "run", text, steps=2000)
    process = subprocess.Popen(command(plan), stderr=subprocess.PIPE, text=True)
    metrics = tmp_path / "run" / "metrics.jsonl"
    wait_for(lambda: metrics.exists() and len(curve(tmp_path / "run")) > 3)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted" in error
    assert list((tmp_path / "run" / "checkpoints").glob("step-*"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "levers",
    [
        {"micro_batch": 1},
        {"attention": "explicit"},
        {"recompute": "full"},
        {"optimizer_kernel": "fused"},
        {"optimizer_kernel": "foreach"},
        {"threads": 2},
        {"precision": "bf16"},
    ],
    ids=lambda levers: next(f"{k}-{v}" for k, v in levers.items()),
)
def test_a_lever_changes_the_curve_by_rounding_only(
    tmp_path: Path, text: str, levers: dict[str, Any]
) -> None:
    plans = [written(tmp_path / "a", text, recipe=ADAMW, steps=12)]
    plans.append(written(tmp_path / "b", text, recipe=ADAMW, steps=12, **levers))
    subprocess.run(command(*plans), check=True)
    tolerance = 0.05 if levers.get("precision") == "bf16" else 2e-3
    for (_, plain), (_, levered) in zip(curve(tmp_path / "a"), curve(tmp_path / "b"), strict=True):
        assert abs(plain - levered) < tolerance


@pytest.mark.slow
def test_another_text_is_refused(tmp_path: Path, text: str) -> None:
    plan = written(tmp_path, text)
    content = json.loads(plan.read_text())
    content["workload"]["text_hash"] = "0" * 64
    plan.write_text(json.dumps(content))
    done = subprocess.run(command(plan), capture_output=True, text=True)
    assert done.returncode == 2
    assert "hashed" in done.stderr


def wait_for(condition: Any, seconds: float = 60.0) -> None:
    deadline = time.time() + seconds
    while not condition():
        assert time.time() < deadline, "it never happened"
        time.sleep(0.02)
