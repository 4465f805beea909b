"""How good is the plan that was found? Against timing every lever set on this machine.

    python benchmarks/plan_regret.py [--output FILE.json]

For each condition (as it is; bf16 made slow in the overlay; a 1 GB memory limit; a long sequence)
every legal plan that is not predicted hopeless (over three times the predicted best) and needs no
compiler is timed for a few steps, there and back. Reported: the chosen plan, its regret (its time
over the best time, minus 1), the default plan's time, and predicted against measured step times.
The chosen plan is what `twofold plan` would write: shortlist by prediction, then finals.
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

from twofold.calibrate import default_overlay_path, read_overlay
from twofold.errors import TwofoldError
from twofold.fleet import Fleet
from twofold.host import describe_host, observe
from twofold.measure.finals import Finalist, choose_plan, default_plan, time_finalists
from twofold.measure.progress import Silent
from twofold.model import Model
from twofold.perf.train import estimate
from twofold.plan import Plan, describe_plan
from twofold.search import check_plan
from twofold.search.space import make_levers
from twofold.workload import Recipe, Train, prepare_corpus

HOPELESS = 3.0
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


CONDITIONS = (
    Condition(name="as it is"),
    Condition(name="bf16 slow", slow_bf16=True),
    Condition(name="1 GB", seq_len=512, batch=64, memory_limit_bytes=1e9),
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
    report = {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": describe_host(),
        "results": results,
    }
    if options.output is not None:
        options.output.write_text(json.dumps(report, indent=1) + "\n")


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
    best = min(timed, key=lambda f: f.step_time_s or math.inf)
    by_plan = {finalist.plan: finalist for finalist in timed}
    default = by_plan.get(default_plan(workload, fleet))
    assert best.step_time_s is not None
    errors = [
        f.estimate.outcome.step_time_s / f.step_time_s - 1
        for f in timed
        if f.estimate is not None and f.step_time_s
    ]
    return {
        "condition": condition.name,
        "chosen": describe_plan(chosen),
        "best": describe_plan(best.plan),
        "regret": (by_plan[chosen].step_time_s or math.inf) / best.step_time_s - 1,
        "chosen_step_s": by_plan[chosen].step_time_s,
        "best_step_s": best.step_time_s,
        "default_step_s": default.step_time_s if default else None,
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


def worth_timing(
    condition: Condition, workload: Train, fleet: Fleet, chosen: Plan
) -> list[Finalist]:
    """Every legal plan that fits and is not hopeless; the chosen and the default among them."""
    finalists = {}
    for plan in [
        *make_levers(workload, fleet.pools[0]).plans(),
        chosen,
        default_plan(workload, fleet),
    ]:
        try:
            check_plan(MODEL, workload, fleet, plan)
        except TwofoldError:
            continue
        guess = estimate(MODEL, workload, fleet, plan)
        limit = condition.memory_limit_bytes or math.inf
        if not plan.compile and (guess.outcome.peak_memory_bytes or 0) <= limit:
            finalists[plan] = Finalist(plan=plan, estimate=guess)
    fastest = min(f.estimate.outcome.step_time_s for f in finalists.values() if f.estimate)
    return [
        f
        for f in finalists.values()
        if f.estimate and f.estimate.outcome.step_time_s <= HOPELESS * fastest
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
