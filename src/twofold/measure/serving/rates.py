"""At which rates an arm is run: about the one where it stops meeting its target.

A short search beforehand, on requests that are not judged, brackets that rate; the rates of all
blocks are laid about it.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable

from twofold.evidence.serving.goodput import Point, goodput

STEP = 1.5
"""From one rate of the search to the next."""
MOST_TRIES = 7
LOWEST, HIGHEST = 0.4, 3.2
"""Of the rate found: so far apart that the crossing lies between them in spite of chance."""

NEAR = (0.6, 0.97)
"""What is attained at a rate from which the crossing is no further than those."""

Attains = Callable[[float], Awaitable[Point]]
"""Runs at a rate."""


async def crossing(start_per_s: float, wanted: float, attains: Attains) -> float:
    """About the highest rate that meets the target, from all that was tried.

    The start, usually a prediction, where it is near already. Else outwards in strides that double
    on logs, since it may be far off, then halving. Where no rate fails, or none meets it, the last
    one.
    """
    points = [await attains(start_per_s)]
    rate, stride = start_per_s, STEP
    met = points[0].attained >= wanted
    while len(points) < MOST_TRIES:
        if NEAR[0] <= points[-1].attained <= NEAR[1]:
            return rate
        following = rate * stride if met else rate / stride
        points.append(await attains(following))
        if (points[-1].attained >= wanted) != met:
            low, high = sorted((rate, following))
            return await _halved(low, high, wanted, attains, points)
        rate, stride = following, stride**2
    return rate


async def _halved(
    low: float, high: float, wanted: float, attains: Attains, points: list[Point]
) -> float:
    while high / low > STEP * 1.01 and len(points) < MOST_TRIES:
        middle = math.sqrt(low * high)
        points.append(await attains(middle))
        low, high = (middle, high) if points[-1].attained >= wanted else (low, middle)
    return goodput(points, wanted).value or low


def rates_about(found_per_s: float, number: int) -> tuple[float, ...]:
    """So many rates in equal ratios about the one found, rounded to three digits so that a person
    can read them."""
    ratio = (HIGHEST / LOWEST) ** (1 / (number - 1))
    return tuple(float(f"{found_per_s * LOWEST * ratio**i:.3g}") for i in range(number))
