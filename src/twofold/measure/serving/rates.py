"""At which rates an arm is run: about the one where it stops meeting its target.

A short search beforehand, on requests that are not judged, finds two neighbouring rates of which
one meets the target and the next does not; the rates of all blocks are laid about them.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable

STEP = 1.5
"""From one rate of the search to the next."""
MOST_TRIES = 7
MARGIN = 1.35
"""How far the lowest and the highest rate lie outside the two that were found."""

Attains = Callable[[float], Awaitable[float]]
"""Attainment at a rate, by running it."""


async def bracket(start_per_s: float, wanted: float, attains: Attains) -> tuple[float, float]:
    """(a rate that met the target, a higher one that did not), about one STEP apart.

    Outwards from the start in strides that double on logs, since the start may be far off, then
    halving. Where neither end is found, the last rate stands for both.
    """
    rate, stride = start_per_s, STEP
    met = await attains(rate) >= wanted
    for tries in range(1, MOST_TRIES):
        following = rate * stride if met else rate / stride
        if (await attains(following) >= wanted) != met:
            low, high = sorted((rate, following))
            return await _halved(low, high, wanted, attains, MOST_TRIES - tries - 1)
        rate, stride = following, stride**2
    return rate / math.sqrt(STEP), rate * math.sqrt(STEP)


async def _halved(
    low: float, high: float, wanted: float, attains: Attains, tries: int
) -> tuple[float, float]:
    for _ in range(tries):
        if high / low <= STEP * 1.01:
            break
        middle = math.sqrt(low * high)
        if await attains(middle) >= wanted:
            low = middle
        else:
            high = middle
    return low, high


def rates_about(low: float, high: float, number: int) -> tuple[float, ...]:
    """So many rates in equal ratios from a little under `low` to a little over `high`, rounded
    to three digits so that a person can read them."""
    first, last = low / MARGIN, high * MARGIN
    ratio = (last / first) ** (1 / (number - 1))
    return tuple(float(f"{first * ratio**i:.3g}") for i in range(number))
