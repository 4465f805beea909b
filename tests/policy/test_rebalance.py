"""Shares that follow measured speeds."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twofold.plan import Plan
from twofold.policy import num_micro_steps, rebalanced_shares, stragglers


def plan(ranks: int, micro_batch: int) -> Plan:
    return Plan(data_degree=ranks, micro_batch=micro_batch)


def test_a_rank_three_times_as_slow_takes_a_third() -> None:
    assert rebalanced_shares(plan(3, 8), (8, 8, 8), (1.0, 1.0, 3.0)) == (11, 10, 3)


def test_shares_stay_where_the_slowest_would_gain_little() -> None:
    assert rebalanced_shares(plan(2, 50), (50, 50), (1.0, 1.04)) == (50, 50)
    assert rebalanced_shares(plan(2, 60), (50, 50), (1.0, 1.04), least_gain=0.0) == (51, 49)


def test_the_largest_micro_batch_is_kept() -> None:
    shares = rebalanced_shares(plan(2, 4), (4, 4), (1.0, 3.0))
    assert shares == (6, 2)
    assert num_micro_steps(plan(2, 4), shares) == 2


def test_a_very_slow_rank_keeps_one_sequence_a_micro_step() -> None:
    assert rebalanced_shares(plan(2, 2), (4, 4), (1.0, 50.0)) == (5, 3)


@given(
    micro_batch=st.integers(1, 6),
    times=st.lists(st.sampled_from([0.5, 1.0, 1.3, 4.0]), min_size=2, max_size=3),
    each=st.integers(1, 4),
)
def test_no_shares_that_can_be_run_are_faster(
    micro_batch: int, times: list[float], each: int
) -> None:
    """Against every way to share a small batch."""
    ranks = len(times)
    total = each * ranks
    start = (each,) * ranks

    def slowest(shares: tuple[int, ...]) -> float:
        return max(n * time for n, time in zip(shares, times, strict=True))

    def can_run(shares: tuple[int, ...]) -> bool:
        return min(shares) >= -(-max(shares) // micro_batch)

    found = rebalanced_shares(plan(ranks, micro_batch), start, times, least_gain=0.0)
    every = [s for s in product(range(1, total + 1), repeat=ranks) if sum(s) == total]
    assert sum(found) == total
    assert can_run(found)
    assert slowest(found) == min(slowest(shares) for shares in every if can_run(shares))


def test_stragglers_are_told_against_the_median_of_the_others() -> None:
    assert stragglers((1.0, 1.2, 2.2)) == ((2, pytest.approx(2.0)),)
    assert stragglers((1.0, 1.5)) == ((1, pytest.approx(1.5)),)
    assert stragglers((1.0,)) == ()
    assert stragglers((1.0, 1.1, 1.2)) == ()


def test_stragglers_are_told_among_ranks_of_their_own_pipeline_stage() -> None:
    """Unlike stages do unlike work: the long one is not slow."""
    assert stragglers((1.0, 1.1, 4.0, 4.1), stages=(0, 0, 1, 1)) == ()
    assert stragglers((1.0, 2.0, 4.0, 4.1), stages=(0, 0, 1, 1)) == ((1, pytest.approx(2.0)),)
