"""A checkpoint is whole or absent, on one rank and on many, and fits any layout of ranks."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from tests.fleets import figure, plain_fleet
from tests.runtime.ranks import free_port, train_ranks
from twofold.plan import Plan
from twofold.policy.checkpointing import (
    ASSUMED_INTERVAL_S,
    best_interval_s,
    checkpoint_interval_s,
    failures_of_plan_per_s,
)
from twofold.runtime.train.cadence import Cadence
from twofold.workload import Recipe

MUON = Recipe(
    learning_rate=5e-3, global_batch=12, optimizer="muon", adam_learning_rate=2e-3
)  # fmt: skip
FP32 = {"orthogonal_precision": "fp32"}
"""bf16 in Muon's iteration makes much of the last bits in which layouts differ."""
LOSS = 1e-5
"""Largest difference of a loss in another layout, in nats, as in the parity tests."""


def act(folder: Path, what: str, ranks: int) -> tuple[list[int], list[Any]]:
    """Exit codes of the ranks, and what each of them told."""
    environment = {
        **os.environ,
        "WORLD_SIZE": str(ranks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "GLOO_SOCKET_IFNAME": "lo",
        "OMP_NUM_THREADS": "1",
    }
    argv = [sys.executable, "-m", "tests.runtime.checkpoint_worker", str(folder), what]
    processes = [
        subprocess.Popen(argv, env={**environment, "RANK": str(rank)}) for rank in range(ranks)
    ]
    try:
        codes = [process.wait(timeout=600) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    told = sorted(folder.parent.glob("told-*.json"))
    return codes, [json.loads(path.read_text()) for path in told]


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_full_disk_of_one_rank_is_an_error_on_all_and_spares_the_last_checkpoint(
    tmp_path: Path, ranks: int
) -> None:
    codes, told = act(tmp_path / "checkpoints", "full", ranks)
    assert codes == [0] * ranks
    for error, left in told:
        assert "step 2 cannot be written" in error
        assert f"rank {ranks - 1}" in error
        assert "step-00000001" in left
        assert "step-00000002" not in left
    assert whole(tmp_path) == ["step-00000001", "step-00000003"]
    _, told = act(tmp_path / "checkpoints", "load", ranks)
    assert told == [[3, 3.0]] * ranks


@pytest.mark.slow
def test_killed_before_the_folder_is_renamed_the_last_checkpoint_is_the_newest(
    tmp_path: Path,
) -> None:
    codes, _ = act(tmp_path / "checkpoints", "killed", 1)
    assert codes == [-signal.SIGKILL]
    assert (tmp_path / "checkpoints" / ".step-00000002").is_dir()
    _, told = act(tmp_path / "checkpoints", "load", 1)
    assert told == [[1, 1.0]]
    assert whole(tmp_path) == ["step-00000001"]
    assert not (tmp_path / "checkpoints" / ".step-00000002").exists()


@pytest.mark.slow
def test_saved_on_four_ranks_it_goes_on_with_two_and_with_one(tmp_path: Path, text: str) -> None:
    """tensor 2 x data 2, then pipeline 2, then one process; weights under Muon and under AdamW."""
    alone = train_ranks(tmp_path / "alone", text, recipe=MUON, plan=FP32)
    four = FP32 | {"tensor_degree": 2, "data_degree": 2, "micro_batch": 3}
    train_ranks(tmp_path / "four", text, recipe=MUON, plan=four, options=("--max-steps", "8"))
    saved = tmp_path / "four" / "checkpoints" / "step-00000008"
    progress = json.loads((saved / "progress.json").read_text())
    assert progress["next_sample"] == 8 * MUON.global_batch
    assert progress["shares"] == [6, 6]
    layouts = {"two": FP32 | {"pipeline_degree": 2, "micro_batch": 3}, "one": FP32}
    for name, plan in layouts.items():
        shutil.copytree(saved, tmp_path / name / "checkpoints" / saved.name)
        resumed = train_ranks(tmp_path / name, text, recipe=MUON, plan=plan)
        assert next(row["step"] for row in resumed.rows if row["event"] == "step") == 9
        difference = max(abs(a - b) for a, b in zip(resumed.losses, alone.losses[8:], strict=True))
        assert difference < LOSS
        for weight, value in alone.weights.items():
            assert (resumed.weights[weight] - value).abs().max() < 1e-4, weight


def test_the_best_interval_follows_from_what_a_checkpoint_costs() -> None:
    cadence = Cadence("best", failures_per_s=1 / 3600, restart_s=30.0)
    assert cadence.is_due(0.0)
    cadence.saved(stall_s=0.5, write_s=2.0)
    best_s = float(best_interval_s(0.5, 1 / 3600, 30.0))
    assert cadence.interval_s == pytest.approx(best_s)
    assert not cadence.is_due(0.99 * best_s)
    assert cadence.is_due(1.01 * best_s)
    cadence.saved(stall_s=0.5, write_s=1e5)
    assert cadence.interval_s == 1e5


def test_a_cadence_that_is_told_is_kept() -> None:
    told = Cadence(60.0, failures_per_s=1 / 3600, restart_s=30.0)
    told.saved(stall_s=50.0, write_s=1.0)
    assert told.interval_s == 60.0
    assert not Cadence(None, failures_per_s=1 / 3600, restart_s=30.0).is_due(1e9)


def test_unknown_reliability_is_not_invented() -> None:
    cadence = Cadence("best", failures_per_s=None, restart_s=30.0)
    cadence.saved(stall_s=0.5, write_s=2.0)
    assert cadence.interval_s == ASSUMED_INTERVAL_S
    assert checkpoint_interval_s(0.5, 2.0, 0.0, 30.0) > 1e5
    plan, fleet = Plan(micro_batch=1, data_degree=3), plain_fleet()
    assert failures_of_plan_per_s(plan, fleet) is None
    (pool,) = fleet.pools
    accelerator = replace(pool.node.accelerator, failures_per_hour=figure(2.0, "1/h"))
    pool = replace(pool, node=replace(pool.node, accelerator=accelerator))
    assert failures_of_plan_per_s(plan, replace(fleet, pools=(pool,))) == 3 * 2.0 / 3600


def whole(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").glob("step-*"))
