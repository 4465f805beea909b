"""The rate at which attainment crosses what is wanted."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from twofold.evidence.serving.goodput import Point, falling, goodput


def points(*pairs: tuple[float, float]) -> list[Point]:
    return [Point(rate_per_s=rate, attained=attained, num=20) for rate, attained in pairs]


def test_between_two_rates_on_logs() -> None:
    found = goodput(points((1.0, 1.0), (4.0, 0.8)), 0.9)
    assert found.value is not None
    assert abs(found.value - 2.0) < 1e-9
    assert (found.low, found.high) == (1.0, 4.0)


def test_none_where_the_lowest_rate_fails_and_open_where_the_highest_meets() -> None:
    none = goodput(points((1.0, 0.5), (2.0, 0.2)), 0.9)
    assert (none.value, none.low, none.high) == (None, None, 1.0)
    most = goodput(points((1.0, 1.0), (2.0, 0.95)), 0.9)
    assert (most.value, most.low, most.high) == (2.0, 2.0, None)


def test_noise_is_pooled_before_the_crossing_is_sought() -> None:
    """A lucky high rate does not count as goodput."""
    found = goodput(points((1.0, 1.0), (2.0, 0.7), (3.0, 0.92), (4.0, 0.1)), 0.9)
    assert found.value is not None
    assert 1.0 < found.value < 2.0


@given(
    st.lists(
        st.tuples(st.floats(0.1, 100), st.floats(0, 1), st.integers(1, 50)), min_size=1, max_size=9
    )
)
def test_fitted_attainment_never_rises_and_keeps_its_mean(
    rows: list[tuple[float, float, int]],
) -> None:
    given_points = [Point(rate_per_s=r, attained=a, num=n) for r, a, n in rows]
    fitted = falling(given_points)
    assert all(a.attained >= b.attained - 1e-12 for a, b in pairwise(fitted))
    before = sum(p.attained * p.num for p in given_points)
    after = sum(p.attained * p.num for p in fitted)
    assert abs(before - after) < 1e-9 * max(1.0, before)
