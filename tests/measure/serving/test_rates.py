"""The search for the rates of an arm, on a machine whose goodput is known."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from twofold.measure.serving.rates import MOST_TRIES, STEP, bracket, rates_about


@given(st.floats(0.1, 100), st.floats(-2, 2))
def test_the_search_ends_about_the_goodput_though_it_starts_a_hundred_times_off(
    goodput: float, decades: float
) -> None:
    tried: list[float] = []

    async def attains(rate: float) -> float:
        tried.append(rate)
        return 1.0 if rate <= goodput else 0.0

    low, high = asyncio.run(bracket(goodput * 10**decades, 0.9, attains))
    assert low <= goodput <= high
    assert high / low <= STEP**2 * 1.001
    assert len(tried) <= MOST_TRIES


def test_rates_lie_about_the_two_that_were_found() -> None:
    rates = rates_about(4.0, 6.0, 3)
    assert rates[0] < 4.0 < rates[1] < 6.0 < rates[2]
