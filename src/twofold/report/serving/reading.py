"""What sections of a serving report read from the evidence."""

from __future__ import annotations

import math
from collections.abc import Sequence

from twofold.evidence.serving.answers import Answer, Stretch
from twofold.evidence.serving.records import NamedTargets, ServingArm, ServingEvidence
from twofold.report.palette import Look
from twofold.workload.serve import Targets


def look_of_serving(evidence: ServingEvidence) -> Look:
    """The claimed arm is blue, its first baseline grey; the others follow in their order."""
    first = [name for arm, baseline in evidence.comparisons[:1] for name in (baseline, arm)]
    names = [*first, *(arm.name for arm in evidence.arms)]
    return Look(slots={name: slot for slot, name in enumerate(dict.fromkeys(names))})


def claimed_targets(evidence: ServingEvidence) -> NamedTargets:
    return next(t for t in evidence.targets if t.name == evidence.claimed)


def main_arms(evidence: ServingEvidence) -> list[ServingArm]:
    """Without those that stand between two others."""
    return [arm for arm in evidence.arms if arm.every_block]


def at_rate(evidence: ServingEvidence, arm: str, rate_per_s: float) -> list[Stretch]:
    return [
        s
        for s in evidence.stretches
        if s.arm == arm and s.kind == "rate" and s.rate_per_s == rate_per_s
    ]


def answers_at(evidence: ServingEvidence, arm: str, rate_per_s: float) -> list[Answer]:
    """The whole judged answers of all blocks."""
    stretches = at_rate(evidence, arm, rate_per_s)
    return [a for s in stretches for a in s.judged if a.whole]


def attained(evidence: ServingEvidence, arm: str, rate_per_s: float, targets: Targets) -> float:
    judged = [a for s in at_rate(evidence, arm, rate_per_s) for a in s.judged]
    return sum(a.meets(targets) for a in judged) / len(judged) if judged else math.nan


def mean_goodput(evidence: ServingEvidence, arm: str, target: str) -> float | None:
    """Geometric mean over blocks; None where a block has none."""
    rows = [
        r
        for r in (evidence.derived.goodputs if evidence.derived else [])
        if r.arm == arm and r.target == target
    ]
    values = [r.value for r in rows if r.value is not None]
    if not values or len(values) < len(rows):
        return None
    return math.exp(math.fsum(math.log(v) for v in values) / len(values))


def rate_nearest(arm: ServingArm, rate_per_s: float | None) -> float:
    """That of the arm's rates which is nearest on logs; the lowest where nothing is known."""
    rates: Sequence[float] = arm.rates_per_s
    if rate_per_s is None:
        return min(rates)
    return min(rates, key=lambda r: abs(math.log(r / rate_per_s)))
