"""What binds a plan: where the time of its run goes, the largest cause first."""

from __future__ import annotations

from dataclasses import dataclass

from twofold.fleet import Pool
from twofold.outcome import Outcome
from twofold.perf.speeds import Efficiencies
from twofold.plan import Plan

COMPUTE = "compute"
_COMPUTE_PARTS = ("gemm", "attention")
_OTHER_CAUSES = {
    "elementwise": "memory",
    "optimizer": "memory",
    "recompute": "recompute",
    "launch": "launch",
    "fixed": "launch",
    "jitter": "stragglers",
}
"""What is neither arithmetic of the model nor transport: the memory's bandwidth, arithmetic done
twice, the host's work for each call and step, and waiting for the slowest of many devices."""
_OF_THE_DIE = (COMPUTE, "memory", "recompute", "launch", "bubble", "stragglers")
_NOTABLE_FRACTION = 0.005
"""A second cause below this share of the run is not worth naming."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """The run's time by cause, in fractions that add up to 1."""

    fractions: dict[str, float]

    @property
    def largest(self) -> tuple[tuple[str, float], ...]:
        """The largest cause with its fraction, and the second where it is notable."""
        first, *others = sorted(self.fractions.items(), key=lambda pair: -pair[1])
        return (first, *(pair for pair in others[:1] if pair[1] >= _NOTABLE_FRACTION))

    @property
    def cause(self) -> str:
        return self.largest[0][0]

    @property
    def fraction(self) -> float:
        return self.largest[0][1]

    @property
    def words(self) -> str:
        """`compute 81%, infiniband 6%`."""
        return ", ".join(f"{cause} {fraction:.0%}" for cause, fraction in self.largest)


def arithmetic_s(outcome: Outcome) -> float:
    """Of a step, what its products take."""
    return sum(outcome.step_parts_s.get(part, 0.0) for part in _COMPUTE_PARTS)


def binding_of(pool: Pool, plan: Plan, outcome: Outcome) -> Binding:
    """Time by cause: compute, recompute, memory, each link by name, bubble, launch, stragglers,
    failures."""
    fractions: dict[str, float] = {}
    share = outcome.goodput_fraction / outcome.step_time_s
    for part, seconds in outcome.step_parts_s.items():
        cause = _cause(part, pool, plan)
        fractions[cause] = fractions.get(cause, 0.0) + seconds * share
    fractions["failures"] = max(0.0, 1.0 - outcome.goodput_fraction)
    return Binding(fractions=fractions)


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
