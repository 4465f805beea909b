"""What may be said of an arm: proven, not proven, or no verdict; and why, in one sentence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from twofold.evidence.records import NoiseFloor, Quality, Ratio
from twofold.evidence.statistics import WIDEST_SPREAD, spreads_too_widely

MINIMUM_PAIRS = 3

Verdict = Literal["proven", "not proven", "no verdict"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Grounds:
    """All that a verdict rests on. `obstacles` are reasons to give none, the gravest first."""

    arm: str
    baseline: str
    same_maths: bool
    maths_is_stated: bool
    planned_pairs: int
    fixed: Ratio | None
    fixed_with_startup: Ratio | None
    noise_floor: NoiseFloor | None
    quality: Quality | None
    quality_lack: str
    obstacles: tuple[str, ...]


def judge(grounds: Grounds) -> tuple[Verdict, str]:
    """The verdict and its reason.

    `no verdict`: an obstacle (a smoke test, a rate above the roof, a busy machine, unmatched
    models), pairs missing, fewer than three, spread too widely, no A/A pairs, or quality not
    checked. `not proven`: quality failed; the lower 95 % bound does not exceed `least_gain` or,
    for the same loss, `margin_charge`; or start-up on the clock takes the gain away.
    """
    verdict, reason = _judge(grounds)
    if grounds.maths_is_stated:
        reason += "; that both do the same maths is the user's statement"
    return verdict, reason


def least_gain(noise_floor: NoiseFloor) -> float:
    """The ratio that a lower bound must exceed to be believed, at least 1.

    A/A pairs show which "gain" the procedure reports where there is none: its mean, in either
    direction, is the least that means anything. Where even their interval excludes 1, order or
    drift favours one place, and the whole interval must be exceeded. Nothing is subtracted.
    """
    ratio = noise_floor.ratio
    seen = [ratio.value]
    if not noise_floor.covers_one and ratio.low is not None and ratio.high is not None:
        seen += [ratio.low, ratio.high]
    return max(max(value, 1.0 / value) for value in seen)


def margin_charge(quality: Quality) -> float | None:
    """The ratio that pays for the loss by which an arm may be worse, at least 1.

    1 + margin_time_fraction · upper / margin: the baseline could stop that much sooner and be no
    better. None where the margin is not known as time.
    """
    if quality.upper is None or quality.upper <= 0:
        return 1.0
    if quality.margin_time_fraction is None:
        return None
    return 1.0 + quality.margin_time_fraction * quality.upper / quality.margin


def _judge(grounds: Grounds) -> tuple[Verdict, str]:
    fixed, floor, quality = grounds.fixed, grounds.noise_floor, grounds.quality
    started = grounds.fixed_with_startup
    if grounds.obstacles:
        return "no verdict", grounds.obstacles[0]
    num_pairs = 0 if fixed is None else len(fixed.pairs)
    if fixed is None or started is None or num_pairs < grounds.planned_pairs:
        return "no verdict", f"only {num_pairs} of {grounds.planned_pairs} planned pairs were run"
    if num_pairs < MINIMUM_PAIRS or fixed.low is None:
        return "no verdict", f"{num_pairs} pairs are fewer than the {MINIMUM_PAIRS} that are needed"
    if floor is None:
        return "no verdict", "no A/A pairs were run, so the noise floor is unknown"
    if spreads_too_widely(fixed):
        return "no verdict", (
            f"the pairs spread too widely (standard deviation {fixed.spread:.0%} of the ratio, "
            f"more than {WIDEST_SPREAD:.0%}): the machine is too busy"
        )
    gain = _describe(grounds, fixed)
    if quality is None:
        return "no verdict", f"{gain}, but equal quality was not checked: {grounds.quality_lack}"
    if not quality.passed:
        return "not proven", f"{gain}, but {_describe_failure(grounds, quality)}"
    if fixed.low <= 1.0:
        return "not proven", f"{gain}: the interval does not lie above 1"
    if fixed.low <= least_gain(floor):
        return "not proven", (
            f"{gain}, which does not exceed what the same arm shows against itself "
            f"({floor.ratio.value:.3f}x)"
        )
    lack = (
        _slower_from_the_start(started)
        if grounds.same_maths
        else _unpaid_margin(fixed.low, quality) or _no_gain_from_the_start(started)
    )
    if lack:
        return "not proven", f"{gain}, but {lack}"
    equal = "the same held-out loss" if grounds.same_maths else "a held-out loss no worse"
    return "proven", f"{gain} at {equal}, within {quality.margin:g} nats"


def _slower_from_the_start(started: Ratio) -> str:
    """Same maths is a rate, which a long run comes to; but a run as long as these must not lose."""
    if started.high is None or started.high >= 1.0:
        return ""
    return f"with start-up on the clock it is slower: {_describe_ratio(started)}"


def _no_gain_from_the_start(started: Ratio) -> str:
    if started.low is not None and started.low > 1.0:
        return ""
    return (
        f"with start-up on the clock it is {_describe_ratio(started)}: the interval does not lie "
        "above 1"
    )


def _unpaid_margin(low: float, quality: Quality) -> str:
    charge = margin_charge(quality)
    if charge is None and quality.difference > 0:
        return (
            f"its held-out loss is {quality.difference:.3g} nats worse, which cannot be charged "
            "as time: the baseline does not show what more training gains it"
        )
    if charge is None or low > charge:
        return ""
    return (
        f"its held-out loss may be worse by up to {quality.upper:.3g} nats, which the baseline "
        f"gains by training {charge:.3g}x as long: the interval does not lie above that"
    )


def _describe_ratio(ratio: Ratio) -> str:
    return f"{ratio.value:.3g}x (95 % interval {ratio.low:.3g}-{ratio.high:.3g})"


def _describe(grounds: Grounds, fixed: Ratio) -> str:
    unit = "per token " if grounds.same_maths else ""
    return (
        f"'{grounds.arm}' is {fixed.value:.3g}x as fast {unit}as '{grounds.baseline}' "
        f"(95 % interval {fixed.low:.3g}-{fixed.high:.3g}, {len(fixed.pairs)} pairs)"
    )


def _describe_failure(grounds: Grounds, quality: Quality) -> str:
    if quality.upper is None:
        return "one seed cannot show equal quality"
    what = "differs by up to" if grounds.same_maths else "may be worse by up to"
    return (
        f"its held-out loss {what} {quality.upper:.3g} nats, past the margin of {quality.margin:g}"
    )
