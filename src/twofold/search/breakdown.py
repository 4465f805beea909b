"""One plan taken apart: time, memory, money, energy and carbon in parts that add up.

A plan on a fleet without calibration curves is estimated anew, so that an old document is
explained by today's physics; a calibrated machine's document is explained by its own estimate.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass

from twofold.document import PlanDocument
from twofold.errors import InputError
from twofold.fleet import Pool
from twofold.outcome import Estimate
from twofold.perf.fleet import Problem, estimate_plans, make_problem
from twofold.perf.speeds import Efficiencies, fitted_efficiencies, peak_flop_per_s
from twofold.plan import Plan
from twofold.search.binding import binding_of
from twofold.search.host_memory import fits_host
from twofold.search.hybrids import Setting, devices_of

CAUSES: Mapping[str, tuple[str, ...]] = {
    "compute": ("gemm", "attention", "elementwise", "launch"),
    "recompute": ("recompute",),
    "messages": (
        "tensor messages",
        "context messages",
        "expert messages",
        "pipeline messages",
        "data messages",
    ),
    "bubble": ("pipeline bubble",),
    "optimizer": ("optimizer",),
    "overhead": ("fixed", "jitter", "overhead"),
}
"""The parts of a step as a bill names them; a part that is in none stands for itself."""

START_UP, LOST = "start-up", "lost to failures"
"""What a run takes beside its steps. `LOST` holds checkpoints and restarts too."""

_TIGHT_FRACTION = 0.97


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """`estimate` with `run_parts_s` that add up to its `time_s`, `cost_parts_usd` to its cost
    and `carbon_parts_kgco2e` to its carbon; what is not known is empty.

    `bound_step_s` is the step at the dense peak of the plan's precision, without a message or a
    stall; `mfu` the bound over the estimate, so never above 1. `fits_host`: the machine's own
    memory holds what the plan keeps there. `remark` tells of a document whose own estimate is
    another.
    """

    title: str
    num_devices: int
    estimate: Estimate
    run_parts_s: dict[str, float]
    cost_parts_usd: dict[str, float]
    carbon_parts_kgco2e: dict[str, float]
    usable_memory_bytes: float
    bound_step_s: float | None
    mfu: float | None
    binds: str
    fits_host: bool = True
    remark: str = ""

    @property
    def fits(self) -> bool:
        peak = self.estimate.outcome.peak_memory_bytes
        return self.fits_host and (peak is None or peak <= self.usable_memory_bytes)


def explain(
    document: PlanDocument, *, date: str | None = None, fit: Efficiencies | None = None
) -> Explanation:
    """Take one plan apart. `date` ("2026-11") is that of the run: the document's, else this month,
    unless given."""
    setting = setting_of(document, date)
    problem = make_problem(
        setting.model, setting.workload, setting.pool, fit or fitted_efficiencies(), setting.date
    )
    estimate = _estimate(document, setting, problem)
    outcome = estimate.outcome
    pool, plan = setting.pool, setting.plan
    run_parts = run_parts_s(estimate)
    unlike = is_over_unlike_ranks(plan)
    bound = None if unlike else _bound_step_s(outcome.flop_per_step, pool, plan)
    cost = {}
    if outcome.cost_usd is not None:
        cost = {n: outcome.cost_usd * part / outcome.time_s for n, part in run_parts.items()}
    return Explanation(
        title=f"{document.model.name} on {_devices_words(document, setting)}",
        num_devices=setting.num_devices,
        estimate=estimate,
        run_parts_s=run_parts,
        cost_parts_usd=cost,
        carbon_parts_kgco2e=_carbon_parts(estimate, pool),
        usable_memory_bytes=_usable_bytes(document, setting, outcome.peak_memory_bytes),
        bound_step_s=bound,
        mfu=None if bound is None else bound / outcome.step_time_s,
        binds=_binds(estimate, setting),
        fits_host=fits_host(problem, plan),
        remark=_remark(document, estimate),
    )


def is_over_unlike_ranks(plan: Plan) -> bool:
    """Whether shares, stages or updates of its own make it more than a plan of one pool says."""
    return bool(plan.shares or plan.stages or plan.local_steps)


def _pools_of(document: PlanDocument) -> list[Pool]:
    plan = document.plan
    named = [share.pool for share in plan.shares] + [stage.pool for stage in plan.stages]
    named = named or [plan.pool]
    return [document.fleet.pool(name) for name in dict.fromkeys(named)]


def _devices_words(document: PlanDocument, setting: Setting) -> str:
    kinds = dict.fromkeys(pool.node.accelerator.name for pool in _pools_of(document))
    if len(kinds) == 1:
        return f"{setting.num_devices} x {setting.accelerator.name}"
    return f"{setting.num_devices} devices ({', '.join(kinds)})"


def _usable_bytes(document: PlanDocument, setting: Setting, peak_bytes: float | None) -> float:
    """Of the device that is fullest; over unlike pools the least that holds the peak."""
    usable = sorted(pool.node.accelerator.memory.usable_bytes.value for pool in _pools_of(document))
    return next((one for one in usable if peak_bytes is not None and one >= peak_bytes), usable[-1])


def setting_of(document: PlanDocument, date: str | None) -> Setting:
    """The side that a document stands for; InputError for a date that is none."""
    day = date or document.date or f"{datetime.date.today():%Y-%m}"
    try:
        datetime.date.fromisoformat(day if day.count("-") > 1 else f"{day}-01")
    except ValueError as error:
        raise InputError(
            f"'{day}' is not a month", at="date", help="write year and month: 2026-11"
        ) from error
    return Setting(
        model=document.model,
        workload=document.workload,
        pool=document.fleet.pool(document.plan.pool),
        plan=document.plan,
        date=day,
    )


def group_causes(parts: Mapping[str, float]) -> dict[str, float]:
    """The parts of a step under the names of `CAUSES`; what is nil is left out."""
    cause_of = {part: cause for cause, names in CAUSES.items() for part in names}
    grouped: dict[str, float] = {}
    for part, value in parts.items():
        cause = cause_of.get(part, part)
        grouped[cause] = grouped.get(cause, 0.0) + value
    return {cause: value for cause, value in grouped.items() if value}


def run_parts_s(estimate: Estimate) -> dict[str, float]:
    """Wall time of the whole run by cause."""
    outcome = estimate.outcome
    step = group_causes(outcome.step_parts_s) or {"steps": outcome.step_time_s}
    parts = {cause: seconds * outcome.num_steps for cause, seconds in step.items()}
    worked = outcome.startup_s + outcome.num_steps * outcome.step_time_s
    return parts | {START_UP: outcome.startup_s, LOST: outcome.time_s - worked}


def _estimate(document: PlanDocument, setting: Setting, problem: Problem) -> Estimate:
    if setting.accelerator.curves is None and not is_over_unlike_ranks(setting.plan):
        return estimate_plans(problem, [setting.plan])[0]
    if document.estimate is None:
        raise InputError(
            "the plan carries no estimate, and that of a calibrated machine or of unlike pools is "
            "not made again",
            at="plan, estimate",
            help="make the plan with `twofold plan`",
        )
    return document.estimate


def _remark(document: PlanDocument, estimate: Estimate) -> str:
    if document.estimate is None:
        return ""
    written, now = document.estimate.outcome.step_time_s, estimate.outcome.step_time_s
    if abs(written / now - 1.0) < 0.005:
        return ""
    return (
        f"the plan was written with a step of {written:.4g} s; by this version, fit and date it "
        f"is {now:.4g} s"
    )


def _bound_step_s(flop_per_step: float | None, pool: Pool, plan: Plan) -> float | None:
    """T = FLOP / (devices x dense peak): no plan of these products in that precision beats it."""
    if flop_per_step is None:
        return None
    try:
        peak = peak_flop_per_s(pool.node.accelerator, plan.precision)
    except InputError:
        return None
    return flop_per_step / (devices_of(plan) * peak)


def _carbon_parts(estimate: Estimate, pool: Pool) -> dict[str, float]:
    """Operational carbon by the causes of the energy, and the embodied rest."""
    outcome = estimate.outcome
    if outcome.carbon_kgco2e is None or outcome.energy_j is None:
        return {}
    if pool.grid_kgco2e_per_kwh is None:
        return {}
    each = pool.grid_kgco2e_per_kwh.value / 3.6e6
    parts = outcome.energy_parts_j or {"operation": outcome.energy_j}
    carbon = {name: joules * each for name, joules in parts.items()}
    return carbon | {"embodied": outcome.carbon_kgco2e - outcome.energy_j * each}


def _binds(estimate: Estimate, setting: Setting) -> str:
    """The two largest causes in words, and the memory where it is full."""
    outcome = estimate.outcome
    if not outcome.step_parts_s:
        return "unknown causes: the step is not split"
    if setting.accelerator.curves is None:
        binding = binding_of(setting.pool, setting.plan, outcome)
        words = ", then ".join(
            f"{cause} ({share:.0%} of the run)" for cause, share in binding.largest
        )
    else:
        part = max(outcome.step_parts_s, key=lambda name: outcome.step_parts_s[name])
        words = f"{part} ({outcome.step_parts_s[part] / outcome.step_time_s:.0%} of the step)"
    usable = setting.accelerator.memory.usable_bytes.value
    peak = outcome.peak_memory_bytes
    if peak is not None and peak > usable:
        return f"a memory that is too small for it; then {words}"
    if peak is not None and peak > _TIGHT_FRACTION * usable:
        return f"{words}; the memory is full"
    return words
