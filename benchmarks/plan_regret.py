"""How good is the plan that was found? Against timing every lever set on this machine.

    python benchmarks/plan_regret.py [--output FILE.json]

For each condition (as it is; bf16 made slow in the overlay; a 1 GB memory limit; a long sequence)
every legal plan that is predicted within a factor of the predicted best (1.8 as it is, 1.3 under
the other conditions) and needs no compiler is timed for a few steps, there and back. Reported: the
chosen plan, its regret (its time over the best time, minus 1), the default plan's time and memory,
and predicted against measured step times. The chosen plan is what `twofold plan` would write:
shortlist by prediction, then finals. About 25 minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from twofold import __version__
from twofold.calibrate import default_overlay_path, read_overlay
from twofold.document import make_document
from twofold.engines.embedded import check_finished, embedded_job, read_run
from twofold.errors import TwofoldError
from twofold.fleet import Fleet
from twofold.host import describe_host, observe
from twofold.launch import run_job
from twofold.measure.finals import Finalist, choose_plan, default_plan, time_finalists
from twofold.measure.progress import Silent
from twofold.model import Model
from twofold.perf.train import estimate
from twofold.plan import Plan, describe_plan
from twofold.search import check_plan
from twofold.search.space import make_levers
from twofold.workload import Recipe, Train, prepare_corpus

LEADERS = 4
MODEL = Model(
    name="modern", layers=4, hidden=128, heads=4, kv_heads=4, ffn=512, vocab=256, max_seq_len=1024,
    norm="rmsnorm", activation="relu2", position="rotary", qk_norm=True, bias=False,
    tied_embeddings=False,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Condition:
    name: str
    seq_len: int = 128
    batch: int = 8
    memory_limit_bytes: float | None = None
    slow_bf16: bool = False
    hopeless: float = 1.3
    """Plans predicted this many times slower than the predicted best are not timed."""


CONDITIONS = (
    Condition(name="as it is", hopeless=1.8),
    Condition(name="bf16 slow", slow_bf16=True),
    Condition(name="1 GB", seq_len=512, batch=32, memory_limit_bytes=1e9),
    Condition(name="long sequence", seq_len=1024, batch=4),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=None)
    parser.add_argument("--only", default=None, help="the name of one condition")
    options = parser.parse_args()
    fleet = read_overlay(default_overlay_path()).fleet
    results = []
    for condition in CONDITIONS:
        if options.only in (None, condition.name):
            results.append(measure(condition, fleet))
            print(json.dumps({k: v for k, v in results[-1].items() if k != "plans"}, indent=1))
            write(options.output, results)


def write(output: Path | None, results: list[dict[str, Any]]) -> None:
    """After every condition, so that stopping early loses nothing."""
    report = {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": describe_host(),
        "results": results,
    }
    if output is not None:
        output.write_text(json.dumps(report, indent=1) + "\n")


def measure(condition: Condition, fleet: Fleet) -> dict[str, Any]:
    if condition.slow_bf16:
        fleet = with_slow_bf16(fleet)
    recipe = Recipe(learning_rate=2e-3, global_batch=condition.batch)
    workload = Train(
        text="stdlib",
        tokens=300 * condition.batch * condition.seq_len,
        seq_len=condition.seq_len,
        recipe=recipe,
        text_hash=prepare_corpus("stdlib").text_hash,
    )
    load = observe().load
    with tempfile.TemporaryDirectory() as scratch:
        chosen, _ = choose_plan(
            model=MODEL,
            workload=workload,
            fleet=fleet,
            maths="planned",
            folder=Path(scratch),
            progress=Silent(),
            memory_limit_bytes=condition.memory_limit_bytes,
        )
        candidates = worth_timing(condition, workload, fleet, chosen)
        timed = time_finalists(
            model=MODEL,
            workload=workload,
            fleet=fleet,
            finalists=candidates,
            folder=Path(scratch),
            progress=Silent(),
            steps=4,
        )
        default = default_plan(workload, fleet)
        fits = {f.plan for f in timed if fits_limit(f, condition)}
        leaders = sorted((f for f in timed if f.plan in fits), key=step_time_s)[:LEADERS]
        again = [f for f in timed if f in leaders or f.plan in (chosen, default)]
        # The fastest of many noisy times flatters itself: the leaders are timed once more.
        retimed = time_finalists(
            model=MODEL,
            workload=workload,
            fleet=fleet,
            finalists=again,
            folder=Path(scratch),
            progress=Silent(),
            rounds=4,
        )
        peaks = {
            name: peak_memory_bytes(workload, fleet, plan, Path(scratch) / name)
            for name, plan in (("chosen", chosen), ("default", default))
        }
    by_plan = {finalist.plan: finalist for finalist in retimed}
    best = min((f for f in retimed if f.plan in fits), key=step_time_s)
    errors = [
        f.estimate.outcome.step_time_s / step_time_s(f) - 1 for f in timed if f.estimate is not None
    ]
    return {
        "condition": condition.name,
        "chosen": describe_plan(chosen),
        "best": describe_plan(best.plan),
        "regret": step_time_s(by_plan[chosen]) / step_time_s(best) - 1,
        "chosen_step_s": step_time_s(by_plan[chosen]),
        "best_step_s": step_time_s(best),
        "default_step_s": step_time_s(by_plan[default]),
        "default_fits": default in fits,
        "memory_limit_bytes": condition.memory_limit_bytes,
        "measured_peak_memory_bytes": peaks,
        "num_timed": len(timed),
        "median_abs_prediction_error": statistics.median(abs(e) for e in errors),
        "within_20_percent": sum(abs(e) <= 0.2 for e in errors) / len(errors),
        "load_before": load,
        "plans": [
            {
                "plan": describe_plan(f.plan),
                "predicted_step_s": f.estimate.outcome.step_time_s if f.estimate else None,
                "measured_step_s": f.step_time_s,
            }
            for f in timed
        ],
    }


def step_time_s(finalist: Finalist) -> float:
    assert finalist.step_time_s is not None
    return finalist.step_time_s


def fits_limit(finalist: Finalist, condition: Condition) -> bool:
    assert finalist.estimate is not None
    peak = finalist.estimate.outcome.peak_memory_bytes or 0
    return peak <= (condition.memory_limit_bytes or math.inf)


def peak_memory_bytes(workload: Train, fleet: Fleet, plan: Plan, folder: Path) -> float | None:
    """Measured, in a process of its own."""
    document = make_document(
        model=MODEL,
        workload=workload,
        fleet=fleet,
        plan=plan,
        estimate=None,
        seed=0,
        twofold_version=__version__,
    )
    check_finished(job := embedded_job([document], [folder], max_steps=3), run_job(job))
    return read_run(folder).peak_memory_bytes


def worth_timing(
    condition: Condition, workload: Train, fleet: Fleet, chosen: Plan
) -> list[Finalist]:
    """Every legal plan that fits and is not hopeless; the chosen and the default among them."""
    always = (chosen, default_plan(workload, fleet))
    finalists = {}
    for plan in [*make_levers(workload, fleet.pools[0]).plans(), *always]:
        try:
            check_plan(MODEL, workload, fleet, plan)
        except TwofoldError:
            continue
        finalist = Finalist(plan=plan, estimate=estimate(MODEL, workload, fleet, plan))
        if plan in always or (not plan.compile and fits_limit(finalist, condition)):
            finalists[plan] = finalist
    predicted = {
        plan: f.estimate.outcome.step_time_s for plan, f in finalists.items() if f.estimate
    }
    fastest = min(
        time_s for plan, time_s in predicted.items() if fits_limit(finalists[plan], condition)
    )
    return [
        finalist
        for plan, finalist in finalists.items()
        if plan in always or predicted[plan] <= condition.hopeless * fastest
    ]


def with_slow_bf16(fleet: Fleet) -> Fleet:
    """The overlay with every bf16 product a hundred times slower than it was measured."""
    pool = fleet.pools[0]
    accelerator = pool.node.accelerator
    assert accelerator.curves is not None
    gemm = tuple(
        replace(curve, flop_per_s=replace(curve.flop_per_s, value=curve.flop_per_s.value / 100))
        if curve.precision == "bf16"
        else curve
        for curve in accelerator.curves.gemm
    )
    slowed = replace(accelerator, curves=replace(accelerator.curves, gemm=gemm))
    node = replace(pool.node, accelerator=slowed)
    return replace(fleet, pools=(replace(pool, node=node),))


if __name__ == "__main__":
    main()
