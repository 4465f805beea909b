"""No measurement above the roof: a rate that the machine cannot reach is an error to find."""

from __future__ import annotations

from collections.abc import Collection

from twofold.errors import InputError
from twofold.evidence.records import Arm, Evidence, Sample
from twofold.units import format_quantity

ROOF_TOLERANCE = 0.03
"""The roof is itself measured: a sample may lie this fraction above it."""


def roof_violations(evidence: Evidence, arms: Collection[str] | None = None) -> list[str]:
    """Samples whose model FLOP/s exceed the calibrated roof, as sentences; of all arms, or some.

    Rate = FLOP per token x tokens / training seconds. Under tf32 and bf16 some operators stay in
    fp32, so the roof is the higher of the two. An arm without a known roof or FLOP count (a
    command) cannot be judged and is passed over.
    """
    found = []
    by_name = {arm.name: arm for arm in evidence.arms}
    for sample in evidence.samples:
        arm = by_name.get(sample.arm)
        if arm is None or (arms is not None and arm.name not in arms):
            continue
        sentence = _violation(evidence, arm, sample)
        if sentence is not None:
            found.append(sentence)
    return found


def arm_precision(arm: Arm) -> str | None:
    """The precision of the arm's plan; None for a command, or where it is not recorded.

    Raises InputError for one that is no word: a roof that cannot be looked up is not kept.
    """
    plan = (arm.plan or {}).get("plan")
    precision = plan.get("precision") if isinstance(plan, dict) else plan
    if precision is not None and not (isinstance(plan, dict) and isinstance(precision, str)):
        raise InputError(
            f"the precision of '{arm.name}' cannot be read from {precision!r}",
            at="evidence, arms, plan.plan.precision",
            help="the evidence is damaged; prove again",
        )
    return precision


def _violation(evidence: Evidence, arm: Arm, sample: Sample) -> str | None:
    flop_per_token = evidence.arm_flop_per_token.get(arm.name)
    precision = arm_precision(arm)
    roofs = [
        evidence.roof_flop_per_s[name]
        for name in (precision, "fp32")
        if name is not None and name in evidence.roof_flop_per_s
    ]
    if precision not in evidence.roof_flop_per_s or flop_per_token is None:
        return None
    roof_flop_per_s = max(roofs)
    # Multiplied out, so that a time of zero is a violation and not a division by zero.
    if flop_per_token * sample.tokens <= (1 + ROOF_TOLERANCE) * roof_flop_per_s * sample.train_s:
        return None
    rate = (
        format_quantity(flop_per_token * sample.tokens / sample.train_s, "FLOP/s")
        if sample.train_s > 0
        else "an infinite rate"
    )
    return (
        f"'{arm.name}' (block {sample.block}, length {sample.length}) shows {rate}, above the "
        f"roof of {format_quantity(roof_flop_per_s, 'FLOP/s')} in {precision}"
    )
