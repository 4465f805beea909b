"""When shares should follow the speeds that were measured, and who holds the others up."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from twofold.plan import Plan
from twofold.policy.shares import balanced_shares, num_micro_steps

LEAST_GAIN = 0.05
"""A change must make the slowest rank faster by this much: below it, noise would move shares."""

STRAGGLER = 1.5
"""A rank that takes this many times the median rank's time for its share is named."""


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
    times_s: Sequence[float], *, factor: float = STRAGGLER
) -> tuple[tuple[int, float], ...]:
    """(rank, how many times the median) of ranks that keep the others waiting."""
    median_s = statistics.median(times_s)
    return tuple(
        (rank, time_s / median_s)
        for rank, time_s in enumerate(times_s)
        if median_s > 0 and time_s >= factor * median_s
    )


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
