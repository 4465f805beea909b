"""When shares should follow the speeds that were measured, and who holds the others up."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from twofold.plan import Plan
from twofold.policy.shares import balanced_shares, num_micro_steps

LEAST_GAIN = 0.05
"""A change must make the slowest rank faster by this much: below it, noise would move shares."""

STRAGGLER = 1.5
"""A rank that takes this many times the median of the others for its share is named."""


def rebalanced_shares(
    plan: Plan,
    shares: Sequence[int],
    time_s_per_sequence: Sequence[float],
    *,
    least_gain: float = LEAST_GAIN,
) -> tuple[int, ...]:
    """The shares for measured times; those given where others would gain too little.

    For each number of micro-steps a share lies between one sequence and one micro-batch a
    micro-step; the best over those numbers is taken, the fewest micro-steps where equal. Once no
    share is as large as it may be, more micro-steps cannot help.
    """
    ranks, total = len(shares), sum(shares)
    best, best_s = tuple(shares), _slowest_s(shares, time_s_per_sequence)
    enough_s = best_s / (1 + least_gain)
    for steps in range(-(-total // (ranks * plan.micro_batch)), total // ranks + 1):
        found = _within(total, time_s_per_sequence, least=steps, most=steps * plan.micro_batch)
        found_s = _slowest_s(found, time_s_per_sequence)
        if found_s < best_s and found_s <= enough_s:
            best, best_s = found, found_s
        if max(found) < steps * plan.micro_batch:
            break
    num_micro_steps(plan, best)
    return best


def stragglers(
    times_s: Sequence[float], *, stages: Sequence[int] = (), factor: float = STRAGGLER
) -> tuple[tuple[int, float], ...]:
    """(rank, how many times the median of the others) of ranks that keep the others waiting.

    A rank's own time is not in the median: of two ranks it would be half of it, and the slower
    would have to be three times as slow to be named. `stages` gives each rank's pipeline stage:
    those of another stage do other work and tell nothing.
    """
    stages = stages or [0] * len(times_s)
    found = []
    for rank, (time_s, stage) in enumerate(zip(times_s, stages, strict=True)):
        others = [
            other_s
            for other, (other_s, its) in enumerate(zip(times_s, stages, strict=True))
            if other != rank and its == stage
        ]
        median_s = statistics.median(others) if others else 0.0
        if median_s > 0 and time_s >= factor * median_s:
            found.append((rank, time_s / median_s))
    return tuple(found)


def _within(
    total: int, time_s_per_sequence: Sequence[float], *, least: int, most: int
) -> tuple[int, ...]:
    """Balanced shares in [least, most]: all but one of `least` are given beforehand."""
    ranks, given = len(time_s_per_sequence), least - 1
    shares = balanced_shares(
        total - ranks * given,
        time_s_per_sequence,
        fixed_s=[given * time_s for time_s in time_s_per_sequence],
        most=[most - given] * ranks,
    )
    return tuple(given + share for share in shares)


def _slowest_s(shares: Sequence[int], time_s_per_sequence: Sequence[float]) -> float:
    return max(n * time_s for n, time_s in zip(shares, time_s_per_sequence, strict=True))
