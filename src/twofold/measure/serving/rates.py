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
MARGIN = 1.2
"""How far the lowest and the highest rate lie outside the two that were found."""

Attains = Callable[[float], Awaitable[float]]
"""Attainment at a rate, by running it."""


async def bracket(start_per_s: float, wanted: float, attains: Attains) -> tuple[float, float]:
    """(a rate that met the target, the next that did not), one STEP apart.

    Where the search ends without either, the last rate it came to stands for both ends.
    """
    rate = start_per_s
    met = await attains(rate) >= wanted
    for _ in range(MOST_TRIES - 1):
        following = rate * STEP if met else rate / STEP
        met_there = await attains(following) >= wanted
        if met_there != met:
            return (rate, following) if met else (following, rate)
        rate = following
    return rate / math.sqrt(STEP), rate * math.sqrt(STEP)


def rates_about(low: float, high: float, number: int) -> tuple[float, ...]:
    """So many rates in equal ratios from a little under `low` to a little over `high`, rounded
    to three digits so that a person can read them."""
    first, last = low / MARGIN, high * MARGIN
    ratio = (last / first) ** (1 / (number - 1))
    return tuple(float(f"{first * ratio**i:.3g}") for i in range(number))
