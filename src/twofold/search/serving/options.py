"""A serving plan with all that is known of it, to be told and compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from twofold.document import as_json
from twofold.perf.serving import PARTS
from twofold.search.objective import Objective
from twofold.search.serving.trial import Tried
from twofold.serving_outcome import ServingEstimate, ServingOutcome
from twofold.serving_plan import ServingPlan
from twofold.simulate.outcome import TimeName
from twofold.workload.serve import Targets

_FULL = 0.9
"""Of the cache on the mean: fluctuations fill it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Miss:
    """A target that is missed, and what the plan reaches for the share of requests that must keep
    it."""

    target: str
    limit_s: float
    reached_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingOption:
    """A plan at the load that is asked for, and up to the load it carries within the targets (0:
    it misses them however little comes). `role` is "best", "second", "newcomer" or "sensible";
    `binds` says what stops it from carrying more, `misses` which target it misses most where it
    carries nothing. `usd_at_carried` are dollars of a million output tokens at the load carried;
    `overload_fraction` is how much more comes than is answered at the load asked for."""

    role: str
    plan: ServingPlan
    estimate: ServingEstimate
    carried: float
    usd_at_carried: float | None
    meets: bool
    overload_fraction: float
    binds: str
    misses: Miss | None = None

    @property
    def outcome(self) -> ServingOutcome:
        return self.estimate.outcome

    def value(self, objective: Objective) -> float | None:
        """What is to be small; by time the inverse of the load carried, else what an output token
        takes."""
        outcome = self.outcome
        if objective == "time":
            return 1.0 / self.carried if self.carried else None
        total = {
            "cost": outcome.cost_usd,
            "energy": outcome.energy_j,
            "carbon": outcome.carbon_kgco2e,
        }[objective]
        return None if total is None else total / outcome.output_tokens

    def as_mapping(self) -> dict[str, Any]:
        mapping: dict[str, Any] = as_json(self)
        return mapping


def worst_miss(targets: Targets, tried: Tried) -> Miss | None:
    """The target that is missed by the largest factor; None where each alone is kept."""
    requests = tried.simulated.requests
    misses = [
        Miss(target=label, limit_s=limit_s, reached_s=requests.quantile(name, targets.attainment))
        for name, limit_s, label in _limits(targets)
        if limit_s is not None
    ]
    worst = max(misses, key=lambda one: one.reached_s / one.limit_s, default=None)
    return worst if worst is not None and worst.reached_s > worst.limit_s else None


def binding(targets: Targets, tried: Tried) -> str:
    """At the load it carries: the target that is nearest, or the cache or the sequences that are
    full, and what most of a step is spent on."""
    outcome = tried.outcome
    requests, share = tried.simulated.requests, targets.attainment
    near = [
        (requests.quantile(name, share) / limit_s, label)
        for name, limit_s, label in _limits(targets)
        if limit_s is not None
    ]
    what = max(near)[1] if near else "throughput"
    if (outcome.kv_used_fraction_mean or 0.0) > _FULL or outcome.num_preemptions:
        what += ", cache full"
    parts = outcome.step_parts_s
    part = max(PARTS, key=lambda name: parts.get(name, 0.0))
    total = sum(parts.values())
    return f"{what}: {part} {parts[part] / total:.0%}" if total else what


def _limits(targets: Targets) -> tuple[tuple[TimeName, float | None, str], ...]:
    return (
        ("ttft_s", targets.ttft_s, "TTFT"),
        ("tpot_s", targets.tpot_s, "TPOT"),
        ("e2e_s", targets.e2e_s, "whole time"),
    )
