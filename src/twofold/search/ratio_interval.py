"""How uncertain the ratio of two estimates is: less than either, by what they have in common."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

from twofold.outcome import Estimate

SHARED_VARIANCE = {"die": 0.5, "die and model": 0.7}
"""Of the variance of ln time, what two runs of one team have in common (what the die reaches, the
framework, the habits) and what therefore leaves their ratio. On 596 published runs 90 % of the
errors lie within 0.256; independent ones would put 90 % of the differences of two within 0.362.
Of one source and die it is 0.257, half of that variance, and with one model 0.194. Two dies of
one source (0.346) and two sources of one die (0.352) have nothing to speak of in common."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A value believed between low and high (90 %)."""

    value: float
    low: float
    high: float

    def as_mapping(self) -> dict[str, float | None]:
        """For JSON, which has no infinity: None."""
        return {n: v if math.isfinite(v) else None for n, v in asdict(self).items()}


def interval_about(value: float, half_width: float) -> Interval:
    """`half_width` of its logarithm to either side."""
    factor = math.exp(half_width)
    return Interval(value=value, low=value / factor, high=value * factor)


def half_width(estimate: Estimate) -> float:
    """Of ln of the step time (90 %)."""
    return math.log(estimate.step_time_high_s / estimate.step_time_low_s) / 2.0


def common_fraction(die: str | None, other_die: str | None, *, same_model: bool) -> float:
    """Of the variance of ln time, what two runs have in common; dies that are not named differ."""
    if die is None or die != other_die:
        return 0.0
    return SHARED_VARIANCE["die and model" if same_model else "die"]


def ratio_half_width(half_a: float, half_b: float, common: float) -> float:
    """Half-width of the ln ratio: sqrt(s_a^2 + s_b^2 - 2 c s_a s_b), at the confidence of s."""
    return math.sqrt(max(half_a**2 + half_b**2 - 2.0 * common * half_a * half_b, 0.0))
