"""How well are step time and memory predicted, on this machine, for arms it has never timed?

    python benchmarks/step_prediction.py [--calibrate] [--rounds 2] [--only TEXT] [--output FILE]

Every arm runs in a process of its own for about two seconds of steps, in rounds that go there and
back. The prediction comes from the calibration alone, which times operations and none of these
networks. Reported for each: predicted and measured step (median over the rounds' medians), their
ratio, and predicted and measured peak memory. Machines drift: `--calibrate` calibrates anew right
before, and the load is written beside every number.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from twofold import __version__
from twofold.calibrate import default_overlay_path, find_implausible, read_overlay
from twofold.document import make_document
from twofold.engines.embedded import check_finished, embedded_job, read_run
from twofold.engines.run import Run
from twofold.fleet import Fleet
from twofold.host import describe_host, observe
from twofold.launch import run_job
from twofold.measure.calibration import calibrate_here
from twofold.measure.progress import Silent
from twofold.model import Model
from twofold.perf import estimate
from twofold.plan import Plan, describe_plan
from twofold.workload import Recipe, Train, prepare_corpus

_MEASURE_S = 2.0
_DISCARDED = 2


@dataclass(frozen=True, kw_only=True)
class Arm:
    name: str
    model: Model
    workload: Train
    plan: Plan


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calibrate", action="store_true")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--only", default="")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    path = default_overlay_path()
    fleet = calibrate_here(path, Silent()) if options.calibrate else read_overlay(path).fleet
    arms = [arm for arm in all_arms() if options.only in arm.name]
    order = [
        index
        for turn in range(options.rounds)
        for index in (range(len(arms)) if turn % 2 == 0 else reversed(range(len(arms))))
    ]
    runs: dict[int, list[Run]] = {}
    loads: dict[int, list[float | None]] = {}
    for index in order:
        loads.setdefault(index, []).append(observe().load)
        runs.setdefault(index, []).append(run_arm(arms[index], fleet))
    rows = [judge(arm, fleet, runs[i], loads[i]) for i, arm in enumerate(arms)]
    for row in rows:
        print(
            f"{row['name']:<34} step {1e3 * row['predicted_step_s']:7.1f} predicted "
            f"{1e3 * row['measured_step_s']:7.1f} ms measured x{row['step_ratio']:.2f}   "
            f"memory x{row['memory_ratio']:.2f}"
        )
    report = {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": describe_host(),
        "doubts": find_implausible(fleet),
        "summary": summary(rows),
        "arms": rows,
    }
    print(json.dumps(report["summary"]))
    if options.output is not None:
        options.output.write_text(json.dumps(report, indent=1) + "\n")


def all_arms() -> list[Arm]:
    text_hash = prepare_corpus("stdlib").text_hash
    arms = []
    for threads in (1, 2):
        for hidden, layers, seq_len, batches in ((128, 4, 128, (4, 16)), (256, 6, 256, (8,))):
            for block, optimizer, attention, kernel in (
                ("gpt2", "adamw", "sdpa", "loop"),
                ("gpt2", "adamw", "explicit", "fused"),
                ("modern", "adamw", "sdpa", "fused"),
                ("modern", "muon", "sdpa", "fused"),
            ):
                for batch in batches:
                    arms.append(
                        Arm(
                            name=f"{threads}thr {block} d{hidden} b{batch} {optimizer} {attention}",
                            model=make_model(block, hidden, layers, seq_len),
                            workload=make_workload(optimizer, seq_len, batch, text_hash),
                            plan=Plan(
                                micro_batch=batch,
                                threads=threads,
                                attention=attention,  # type: ignore[arg-type]
                                optimizer_kernel=kernel,  # type: ignore[arg-type]
                                orthogonal_precision="fp32",
                            ),
                        )
                    )
        arms.append(
            Arm(
                name=f"{threads}thr gpt2 d128 b16/4 recompute",
                model=make_model("gpt2", 128, 4, 128),
                workload=make_workload("adamw", 128, 16, text_hash),
                plan=Plan(micro_batch=4, threads=threads, recompute="full"),
            )
        )
    return arms


def make_model(block: str, hidden: int, layers: int, seq_len: int) -> Model:
    modern: dict[str, Any] = {
        "norm": "rmsnorm", "activation": "relu2", "position": "rotary", "qk_norm": True,
        "bias": False, "tied_embeddings": False, "value_embeddings": 2, "logit_softcap": 15.0,
    }  # fmt: skip
    return Model(
        name=f"{block}-{hidden}",
        layers=layers,
        hidden=hidden,
        heads=hidden // 64,
        kv_heads=hidden // 64,
        ffn=4 * hidden,
        vocab=256,
        max_seq_len=seq_len,
        **(modern if block == "modern" else {}),
    )


def make_workload(optimizer: Any, seq_len: int, batch: int, text_hash: str | None) -> Train:
    return Train(
        text="stdlib",
        tokens=10_000_000,
        seq_len=seq_len,
        text_hash=text_hash,
        recipe=Recipe(
            optimizer=optimizer,
            learning_rate=1e-3,
            adam_learning_rate=1e-3,
            global_batch=batch,
            initialisation="zero-residual" if optimizer == "muon" else "gpt2",
        ),
    )


def run_arm(arm: Arm, fleet: Fleet) -> Run:
    predicted_s = estimate(arm.model, arm.workload, fleet, arm.plan).outcome.step_time_s
    steps = _DISCARDED + max(4, math.ceil(_MEASURE_S / predicted_s))
    document = make_document(
        model=arm.model,
        workload=arm.workload,
        fleet=fleet,
        plan=arm.plan,
        estimate=None,
        seed=0,
        twofold_version=__version__,
    )
    with tempfile.TemporaryDirectory() as scratch:
        job = embedded_job([document], [Path(scratch)], max_steps=steps)
        check_finished(job, run_job(job, lambda _: None))
        return read_run(Path(scratch))


def judge(arm: Arm, fleet: Fleet, runs: list[Run], loads: list[float | None]) -> dict[str, Any]:
    guess = estimate(arm.model, arm.workload, fleet, arm.plan)
    outcome = guess.outcome
    steps_s = [statistics.median(run.step_times_s[_DISCARDED:]) for run in runs]
    measured_s = statistics.median(steps_s)
    peak_bytes = max(run.peak_memory_bytes or 0.0 for run in runs)
    assert outcome.peak_memory_bytes is not None
    return {
        "name": arm.name,
        "plan": describe_plan(arm.plan),
        "predicted_step_s": outcome.step_time_s,
        "measured_step_s": measured_s,
        "step_ratio": outcome.step_time_s / measured_s,
        "in_interval": guess.step_time_low_s <= measured_s <= guess.step_time_high_s,
        "rounds_step_s": steps_s,
        "parts_s": outcome.step_parts_s,
        "predicted_peak_bytes": outcome.peak_memory_bytes,
        "measured_peak_bytes": peak_bytes,
        "memory_ratio": outcome.peak_memory_bytes / peak_bytes,
        "memory_parts_bytes": outcome.memory_parts_bytes,
        "startup_s": [run.startup_s for run in runs],
        "predicted_startup_s": outcome.startup_s,
        "loads": loads,
    }


def summary(rows: list[dict[str, Any]]) -> dict[str, float]:
    steps = [abs(row["step_ratio"] - 1) for row in rows]
    memory = [abs(row["memory_ratio"] - 1) for row in rows]
    return {
        "median_step_error": statistics.median(steps),
        "largest_step_error": max(steps),
        "step_within_20_percent": sum(e <= 0.2 for e in steps) / len(rows),
        "in_interval": sum(row["in_interval"] for row in rows) / len(rows),
        "median_memory_error": statistics.median(memory),
        "largest_memory_error": max(memory),
    }


if __name__ == "__main__":
    main()
