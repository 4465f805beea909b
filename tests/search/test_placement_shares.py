"""Shares are optimal: against every way to share out, on small fleets."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twofold.policy.shares import balanced_shares
from twofold.search.placement.ideal import best_subset_gain, even_split_gain
from twofold.search.placement.shares import ShareCurve, SharedOut, best_shares, even_split

rises = st.lists(st.floats(0.0, 2.0), min_size=1, max_size=6)


@st.composite
def curves_(draw: st.DrawFn) -> list[ShareCurve]:
    least = draw(st.integers(1, 2))
    return [
        ShareCurve(
            ranks=draw(st.integers(1, 2)),
            least=least,
            finish_s=np.cumsum(draw(rises)),
        )
        for _ in range(draw(st.integers(1, 3)))
    ]


def linear(ranks: int, seconds: float, most: int, fixed_s: float = 0.0) -> ShareCurve:
    return ShareCurve(ranks=ranks, least=1, finish_s=fixed_s + seconds * np.arange(1.0, most + 1.0))


def by_exhaustion(total: int, curves: list[ShareCurve]) -> float | None:
    ranks = [curve for curve in curves for _ in range(curve.ranks)]
    choices = product(*(range(curve.least, curve.most + 1) for curve in ranks))
    finishes = [
        max(curve.done_s(share) for curve, share in zip(ranks, shares, strict=True))
        for shares in choices
        if sum(shares) == total
    ]
    return min(finishes, default=None)


def total_of(found: SharedOut) -> int:
    return sum(n * share for counts in found.shares for n, share in counts)


@given(curves_(), st.integers(1, 24))
def test_no_way_to_share_out_is_faster(curves: list[ShareCurve], total: int) -> None:
    found, best = best_shares(total, curves), by_exhaustion(total, curves)
    assert (found is None) == (best is None)
    if found is None:
        return
    assert found.slowest_s == best
    assert total_of(found) == total
    for curve, counts in zip(curves, found.shares, strict=True):
        assert sum(n for n, _ in counts) == curve.ranks
        assert all(curve.least <= share <= curve.most for _, share in counts)


@given(
    st.lists(st.floats(0.1, 10.0), min_size=1, max_size=5),
    st.integers(5, 60),
)
def test_one_cost_a_rank_gives_what_the_policy_gives(seconds: list[float], total: int) -> None:
    found = best_shares(total, [linear(1, s, total) for s in seconds])
    shares = balanced_shares(total, seconds)
    assert found is not None
    assert found.slowest_s == pytest.approx(
        max(s * b for s, b in zip(seconds, shares, strict=True))
    )


@given(st.integers(1, 4), st.integers(1, 4), st.floats(0.1, 5.0), st.integers(8, 64))
def test_equal_pools_give_the_even_split(a: int, b: int, seconds: float, total: int) -> None:
    curves = [linear(a, seconds, total), linear(b, seconds, total)]
    found, even = best_shares(total, curves), even_split(total, curves)
    assert found is not None
    assert even is not None
    assert found.slowest_s == even.slowest_s
    assert total_of(even) == total


@given(curves_(), st.integers(1, 24), st.floats(0.1, 1.0))
def test_a_faster_pool_never_worsens(curves: list[ShareCurve], total: int, pace: float) -> None:
    found = best_shares(total, curves)
    first = curves[0]
    faster = ShareCurve(ranks=first.ranks, least=first.least, finish_s=pace * first.finish_s)
    then = best_shares(total, [faster, *curves[1:]])
    if found is not None:
        assert then is not None
        assert then.slowest_s <= found.slowest_s


@given(st.lists(st.sampled_from([1.0, 1.5, 2.0, 4.0, 9.0]), min_size=1, max_size=6))
def test_the_best_equal_shares_are_on_the_fastest_devices(speeds: list[float]) -> None:
    """max_k k s_(k) over prefixes is the best of all subsets."""
    subsets = [c for n in range(1, len(speeds) + 1) for c in combinations(speeds, n)]
    most = max(len(subset) * min(subset) for subset in subsets)
    assert best_subset_gain(speeds) == pytest.approx(sum(speeds) / most)


def test_memory_clips_a_share() -> None:
    fast_but_small, slow = linear(1, 1.0, 4), linear(1, 2.0, 100)
    found = best_shares(12, [fast_but_small, slow])
    assert found is not None
    assert found.shares == (((1, 4),), ((1, 8),))
    assert best_shares(300, [fast_but_small, slow]) is None


@pytest.mark.parametrize(
    ("speeds", "over_even", "over_subset"),
    [
        ((989, 312), 2.08, 1.32),  # H100 + A100, dense bf16 of their datasheets
        ((1307.4, 312), 2.60, 1.24),  # MI300X + A100
        ((989, 121, 121, 121, 121), 2.43, 1.49),  # H100 + 4 L4
        ((2250, 989), 1.64, 1.44),  # B200 + H100 (a B200 of 2250)
        ((989, 312, 312, 312), 1.54, 1.54),  # H100 + 3 A100
    ],
)
def test_the_published_factors(
    speeds: tuple[float, ...], over_even: float, over_subset: float
) -> None:
    """Section 3c of the research: most published factors are over the even split."""
    assert even_split_gain(speeds) == pytest.approx(over_even, abs=0.012)
    assert best_subset_gain(speeds) == pytest.approx(over_subset, abs=0.012)


@given(st.lists(st.floats(0.1, 100.0), min_size=1, max_size=8))
def test_the_best_subset_is_never_worse_than_all(speeds: list[float]) -> None:
    assert 1.0 - 1e-9 <= best_subset_gain(speeds) <= even_split_gain(speeds) + 1e-9
