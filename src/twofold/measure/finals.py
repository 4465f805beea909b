"""Which plan an arm runs: the default, a well-informed person's, or the search's, timed.

The search only predicts. Its finalists, and always the default beside them, are run for a few
steps each in one process, there and back, so that drift falls on all alike; the whole run with
its start-up decides. The predicted order is written down before the first of them is timed.
"""

from __future__ import annotations

import shutil
import statistics
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from twofold import __version__
from twofold.document import PlanDocument, make_document
from twofold.engines.embedded import check_finished, embedded_job, read_run
from twofold.engines.run import Run
from twofold.errors import NegativeAnswer
from twofold.fleet import Fleet
from twofold.launch import run_job
from twofold.measure.experiment import Maths
from twofold.measure.progress import Progress
from twofold.model import Model
from twofold.outcome import Estimate
from twofold.perf.train import estimate
from twofold.plan import Plan, describe_plan
from twofold.search import Shortlist, shortlist
from twofold.workload import Train

_ROUNDS = 2
_STEPS = 8
_DISCARDED_STEPS = 2
_HOPELESS = 3.0
"""Finalists predicted this many times slower than the best are not timed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finalist:
    """One plan with what was predicted for it and, once timed, what it took."""

    plan: Plan
    estimate: Estimate | None
    step_time_s: float | None = None
    startup_s: float | None = None

    def run_s(self, num_steps: int) -> float:
        """Time of the whole run: measured where timed, else predicted."""
        assert self.step_time_s is not None
        assert self.startup_s is not None
        return self.startup_s + num_steps * self.step_time_s


def default_plan(workload: Train, fleet: Fleet) -> Plan:
    """What the framework does unasked: fp32, its attention, all cores, its own optimizer loop."""
    accelerator = fleet.pools[0].node.accelerator
    return Plan(
        pool=fleet.pools[0].name,
        micro_batch=workload.recipe.global_batch,
        threads=accelerator.threads,
        optimizer_kernel="loop" if accelerator.kind == "cpu" else "foreach",
        orthogonal_precision="fp32",
    )


def choose_plan(
    *,
    model: Model,
    workload: Train,
    fleet: Fleet,
    maths: Maths,
    folder: Path,
    progress: Progress,
    memory_limit_bytes: float | None = None,
) -> tuple[Plan, list[dict[str, Any]]]:
    """The plan that wins its finals, and a row for every finalist in predicted order."""
    default = default_plan(workload, fleet)
    if maths == "default":
        return default, []
    if model.entry is not None:
        finalists = _unpredicted_choices(fleet, default)
    elif maths == "fastest":
        finalists = _informed_choices(model, workload, fleet, default)
    else:
        listed = shortlist(model, workload, fleet, memory_limit_bytes=memory_limit_bytes)
        finalists = [Finalist(plan=plan, estimate=guess) for plan, guess in listed.ranked]
        if memory_limit_bytes is None and default not in [f.plan for f in finalists]:
            finalists.append(_predicted(model, workload, fleet, default))
    finalists = _worth_timing(finalists)
    timed = time_finalists(
        model=model,
        workload=workload,
        fleet=fleet,
        finalists=finalists,
        folder=folder,
        progress=progress,
    )
    num_steps = workload.num_steps
    best = min(timed, key=lambda finalist: finalist.run_s(num_steps))
    return best.plan, [_row(finalist, num_steps, chosen=finalist is best) for finalist in timed]


def time_finalists(
    *,
    model: Model,
    workload: Train,
    fleet: Fleet,
    finalists: list[Finalist],
    folder: Path,
    progress: Progress,
    rounds: int = _ROUNDS,
    steps: int = _STEPS,
) -> list[Finalist]:
    """Run every finalist for a few steps, there and back, in one process."""
    order = [
        index
        for turn in range(rounds)
        for index in (range(len(finalists)) if turn % 2 == 0 else reversed(range(len(finalists))))
    ]
    documents = [_document(model, workload, fleet, finalists[index].plan) for index in order]
    folders = [folder / f"final-{turn:02d}" for turn in range(len(order))]
    for stale in folders:
        shutil.rmtree(stale, ignore_errors=True)
    job = embedded_job(documents, folders, max_steps=_DISCARDED_STEPS + steps)
    done = 0

    def on_row(row: dict[str, Any]) -> None:
        nonlocal done
        if row.get("event") == "end":
            done += 1
            progress.advance("timing finalists", done, len(order))

    check_finished(job, run_job(job, on_row))
    runs: dict[int, list[Run]] = {}
    for index, place in zip(order, folders, strict=True):
        runs.setdefault(index, []).append(read_run(place))
    return [
        replace(
            finalist,
            step_time_s=statistics.median(
                time_s for run in runs[index] for time_s in run.step_times_s[_DISCARDED_STEPS:]
            ),
            startup_s=_startup_s(finalist.plan, runs[index]),
        )
        for index, finalist in enumerate(finalists)
    ]


def _startup_s(plan: Plan, runs: list[Run]) -> float:
    """Compiling is paid by the first run alone, and a user pays it; whatever else the first run
    of the process was slower at is none of the plan's doing."""
    startups_s = [run.startup_s for run in runs]
    return max(startups_s) if plan.compile else min(startups_s)


def predicted_rows(listed: Shortlist) -> list[dict[str, Any]]:
    """The shortlist as rows, nothing timed; the predicted best is the choice."""
    return [
        {
            "plan": describe_plan(plan),
            "predicted_step_time_s": guess.outcome.step_time_s if guess else None,
            "predicted_run_s": guess.outcome.time_s if guess else None,
            "measured_step_time_s": None,
            "measured_startup_s": None,
            "measured_run_s": None,
            "chosen": rank == 0,
        }
        for rank, (plan, guess) in enumerate(listed.ranked)
    ]


def _informed_choices(model: Model, workload: Train, fleet: Fleet, default: Plan) -> list[Finalist]:
    """Precision and attention, every pair that the device has figures for."""
    accelerator = fleet.pools[0].node.accelerator
    kernels = ("sdpa", "explicit") if accelerator.kind == "cpu" else ("sdpa",)
    plans = [
        replace(default, precision=precision, attention=kernel)  # type: ignore[arg-type]
        for precision in accelerator.flop_per_s
        if precision in ("fp32", "tf32", "bf16")
        for kernel in kernels
    ]
    return [_predicted(model, workload, fleet, plan) for plan in plans]


def _unpredicted_choices(fleet: Fleet, default: Plan) -> list[Finalist]:
    """For a user's own network, of which no price is known: the default with one lever changed."""
    accelerator = fleet.pools[0].node.accelerator
    roof = max(figure.value for figure in accelerator.flop_per_s.values())
    changed: list[Plan] = [replace(default, optimizer_kernel="fused")]
    if default.threads > 1:
        changed.append(replace(default, threads=1))
    bf16 = accelerator.flop_per_s.get("bf16")
    if bf16 is not None and _HOPELESS * bf16.value > roof:
        changed.append(replace(default, precision="bf16"))
    return [Finalist(plan=plan, estimate=None) for plan in [default, *changed]]


def _predicted(model: Model, workload: Train, fleet: Fleet, plan: Plan) -> Finalist:
    guess = None if model.entry is not None else estimate(model, workload, fleet, plan)
    return Finalist(plan=plan, estimate=guess)


def _worth_timing(finalists: list[Finalist]) -> list[Finalist]:
    if not finalists:
        raise NegativeAnswer("no plan fits this machine", help="use a smaller model or batch")
    known = [f.estimate.outcome.time_s for f in finalists if f.estimate is not None]
    if not known:
        return finalists
    limit = _HOPELESS * min(known)
    return [f for f in finalists if f.estimate is None or f.estimate.outcome.time_s <= limit]


def _document(model: Model, workload: Train, fleet: Fleet, plan: Plan) -> PlanDocument:
    return make_document(
        model=model,
        workload=workload,
        fleet=fleet,
        plan=plan,
        estimate=None,
        seed=0,
        twofold_version=__version__,
    )


def _row(finalist: Finalist, num_steps: int, *, chosen: bool) -> dict[str, Any]:
    guess = finalist.estimate
    return {
        "plan": describe_plan(finalist.plan),
        "predicted_step_time_s": guess.outcome.step_time_s if guess else None,
        "predicted_run_s": guess.outcome.time_s if guess else None,
        "measured_step_time_s": finalist.step_time_s,
        "measured_startup_s": finalist.startup_s,
        "measured_run_s": finalist.run_s(num_steps),
        "chosen": chosen,
    }
