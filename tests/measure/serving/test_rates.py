"""The search for the rates of an arm, on a machine whose goodput is known."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from twofold.evidence.serving.goodput import Point
from twofold.measure.serving.rates import MOST_TRIES, STEP, crossing, rates_about


@given(st.floats(0.1, 100), st.floats(-2, 2))
def test_the_search_ends_about_the_goodput_though_it_starts_a_hundred_times_off(
    goodput: float, decades: float
) -> None:
    tried: list[float] = []

    async def attains(rate: float) -> Point:
        tried.append(rate)
        return Point(rate_per_s=rate, attained=1.0 if rate <= goodput else 0.0, num=20)

    found = asyncio.run(crossing(goodput * 10**decades, 0.9, attains))
    assert goodput / STEP**2 * 0.999 <= found <= goodput * STEP**2 * 1.001
    assert len(tried) <= MOST_TRIES


def test_a_prediction_that_is_near_is_not_searched_about() -> None:
    tried: list[float] = []

    async def attains(rate: float) -> Point:
        tried.append(rate)
        return Point(rate_per_s=rate, attained=0.8, num=20)

    assert asyncio.run(crossing(10.0, 0.9, attains)) == 10.0
    assert tried == [10.0]


def test_where_no_rate_is_too_much_the_last_stands() -> None:
    async def attains(rate: float) -> Point:
        return Point(rate_per_s=rate, attained=1.0, num=20)

    assert asyncio.run(crossing(1.0, 0.9, attains)) > 100


def test_rates_lie_about_the_one_that_was_found() -> None:
    rates = rates_about(4.0, 3)
    assert rates == (1.6, 4.53, 12.8)
