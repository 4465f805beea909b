"""What binds a plan: where the time goes that is not arithmetic."""

from __future__ import annotations

from dataclasses import dataclass

from twofold.fleet import Pool
from twofold.outcome import Outcome
from twofold.perf.speeds import Efficiencies
from twofold.plan import Plan

COMPUTE = "compute"
MEMORY = "memory"
_COMPUTE_PARTS = ("gemm", "attention")
_OTHER_CAUSES = {"launch": "launch", "fixed": "launch", "jitter": "stragglers"}
"""What is neither arithmetic nor transport: the host's work for each call and step, and waiting
for the slowest of many devices."""
_MEMORY_PARTS = ("elementwise", "optimizer", "recompute")
"""Bandwidth binds the first two; `recompute` is the price of too little capacity."""
_OF_THE_DIE = (COMPUTE, MEMORY, "launch", "bubble", "stragglers")
_NOTABLE_FRACTION = 0.05
"""Below this share of the run nothing but arithmetic is worth naming."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """The largest cause that is not arithmetic, and its fraction of the run; `compute` with the
    fraction of arithmetic where no other cause matters. `fractions` add up to 1."""

    cause: str
    fraction: float
    fractions: dict[str, float]


def binding_of(pool: Pool, plan: Plan, outcome: Outcome) -> Binding:
    """Time by cause: compute, memory, each link by name, bubble, launch, stragglers, failures."""
    fractions: dict[str, float] = {}
    share = outcome.goodput_fraction / outcome.step_time_s
    for part, seconds in outcome.step_parts_s.items():
        cause = _cause(part, pool, plan)
        fractions[cause] = fractions.get(cause, 0.0) + seconds * share
    fractions["failures"] = 1.0 - outcome.goodput_fraction
    others = {cause: value for cause, value in fractions.items() if cause != COMPUTE}
    largest = max(others, key=lambda cause: others[cause])
    if others[largest] < _NOTABLE_FRACTION:
        largest = COMPUTE
    return Binding(cause=largest, fraction=fractions.get(largest, 0.0), fractions=fractions)


def unmeasured_fractions(pool: Pool, binding: Binding, fit: Efficiencies) -> dict[str, float]:
    """The causes, with their fractions of the run, of which no published run of this die or
    fabric speaks: they rest on the means of others, or on an assumed rate of failures."""
    device = pool.node.accelerator
    known_die = fit.die(device).num_runs > 0 and device.die in fit.dies
    known = {
        link.name: fit.fabrics[link.fabric].num_runs > 0
        for link in pool.node.links
        if link.fabric in fit.fabrics
    }
    rate = device.failures_per_hour
    known["failures"] = rate is not None and rate.basis not in ("assumed", "announced")
    return {
        cause: fraction
        for cause, fraction in binding.fractions.items()
        if fraction > 0 and not known.get(cause, known_die and cause in _OF_THE_DIE)
    }


def _cause(part: str, pool: Pool, plan: Plan) -> str:
    if part in _COMPUTE_PARTS:
        return COMPUTE
    if part in _MEMORY_PARTS:
        return MEMORY
    if part in _OTHER_CAUSES:
        return _OTHER_CAUSES[part]
    if part.endswith("bubble"):
        return "bubble"
    return _link_name(pool, _reach(part.removesuffix(" messages"), plan))


def _reach(axis: str, plan: Plan) -> int:
    """How many neighbouring devices a group of that axis spans: tensor ranks are nearest, then
    context, data and pipeline."""
    tensor = plan.tensor_degree
    inner = tensor * plan.context_degree
    return {
        "tensor": tensor,
        "context": inner,
        "expert": plan.expert_tensor_degree * plan.expert_degree,
        "data": inner * plan.data_degree,
        "pipeline": inner * plan.data_degree * plan.pipeline_degree,
    }[axis]


def _link_name(pool: Pool, reach: int) -> str:
    up, out = pool.node.link("scale-up"), pool.node.link("scale-out")
    inside = up is not None and reach <= (up.domain or pool.node.num_accelerators)
    link = up if inside or out is None else out
    return "network" if link is None else link.name
