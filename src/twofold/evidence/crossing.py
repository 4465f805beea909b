"""When a run would have reached the target loss, from runs of several complete lengths.

A crossing is never read off a mid-schedule curve: a run whose learning rate has not yet decayed
has a loss that no finished run of that length would have.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

MINIMUM_LENGTHS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Crossing:
    """The interpolated time and tokens to the target, and what bounds the time surely.

    `train_s` and `tokens` are None unless two lengths bracket the target. Whatever the case, the
    crossing lies in [low_s, high_s]; None is an unknown bound. A speed-up that is to be
    understated divides the baseline's `low_s` by the arm's `high_s`.
    """

    train_s: float | None
    tokens: float | None
    low_s: float | None
    high_s: float | None
    note: str


def find_crossing(lengths: Sequence[tuple[float, float, float]], target: float) -> Crossing:
    """From (train_s, tokens, loss) of one arm and seed, one entry a schedule-complete length.

    Between the bracketing lengths the loss is linear in ln(tokens) and the time in tokens.
    - Not reached by the longest: nothing interpolated; at least the longest run's time.
    - Below the target at the shortest: at most the shortest run's time, and no lower bound, so
      a baseline in this case yields no speed-up.
    - Crossed several times (losses of separate runs need not fall steadily): the first crossing
      is reported and is the lower bound, the last is the upper bound.
    """
    runs = sorted(lengths, key=lambda run: run[1])
    if len(runs) < MINIMUM_LENGTHS:
        return unknown_crossing(f"{len(runs)} lengths run; at least {MINIMUM_LENGTHS} are needed")
    downward = [
        _interpolate(before, after, target)
        for before, after in pairwise(runs)
        if before[2] > target >= after[2]
    ]
    shortest, longest = runs[0], runs[-1]
    reached_at_end = longest[2] <= target
    if shortest[2] <= target:
        last_s = downward[-1][0] if downward else shortest[0]
        return Crossing(
            train_s=None,
            tokens=None,
            low_s=None,
            high_s=last_s if reached_at_end else None,
            note="below the target already at the shortest length",
        )
    if not downward:
        return Crossing(
            train_s=None, tokens=None, low_s=longest[0], high_s=None, note="not reached"
        )
    first_s, first_tokens = downward[0]
    return Crossing(
        train_s=first_s,
        tokens=first_tokens,
        low_s=first_s,
        high_s=downward[-1][0] if reached_at_end else None,
        note=_note(len(downward), reached_at_end),
    )


def _interpolate(
    before: tuple[float, float, float], after: tuple[float, float, float], target: float
) -> tuple[float, float]:
    """(train_s, tokens) at the target."""
    before_s, before_tokens, before_loss = before
    after_s, after_tokens, after_loss = after
    fraction = (before_loss - target) / (before_loss - after_loss)
    tokens = before_tokens * math.exp(fraction * math.log(after_tokens / before_tokens))
    time_fraction = (tokens - before_tokens) / (after_tokens - before_tokens)
    return before_s + time_fraction * (after_s - before_s), tokens


def _note(num_crossings: int, reached_at_end: bool) -> str:
    if not reached_at_end:
        return "reached, but the longest run is above the target again"
    if num_crossings > 1:
        return f"crossed {num_crossings} times; the first is given"
    return ""


def unknown_crossing(note: str) -> Crossing:
    return Crossing(train_s=None, tokens=None, low_s=None, high_s=None, note=note)
