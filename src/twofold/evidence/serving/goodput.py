"""Goodput under a target: the highest rate at which enough requests still meet it.

Attainment falls as the rate rises. Measured at a few rates it does so but for noise, which
isotonic regression takes out (Ayer et al. 1955, pool adjacent violators); between the two rates
about the wanted attainment the crossing is interpolated on the logarithm of the rate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """What was attained at one rate, of `num` judged requests."""

    rate_per_s: float
    attained: float
    num: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Goodput:
    """`value` in requests/s, between the rates `low` and `high` that were run.

    `low` None: even the lowest rate failed, so goodput is below `high` and `value` None. `high`
    None: the highest rate still met the target, `value` is it, and goodput is at least that.
    """

    value: float | None
    low: float | None
    high: float | None


def falling(points: Sequence[Point]) -> list[Point]:
    """Points in order of the rate, with attainments that never rise: the least-squares fit,
    weighted by the number of requests."""
    pools: list[tuple[float, int, list[Point]]] = []
    for point in sorted(points, key=lambda p: p.rate_per_s):
        attained, num, members = point.attained, point.num, [point]
        while pools and pools[-1][0] < attained:
            before, before_num, before_members = pools.pop()
            attained = (before * before_num + attained * num) / (before_num + num)
            num, members = before_num + num, before_members + members
        pools.append((attained, num, members))
    return [
        Point(rate_per_s=member.rate_per_s, attained=attained, num=member.num)
        for attained, _, members in pools
        for member in members
    ]


def goodput(points: Sequence[Point], wanted: float) -> Goodput:
    """The rate at which attainment crosses `wanted` (a fraction)."""
    fitted = falling(points)
    above = [p for p in fitted if p.attained >= wanted]
    below = [p for p in fitted if p.attained < wanted]
    if not above:
        return Goodput(value=None, low=None, high=below[0].rate_per_s if below else None)
    low = above[-1]
    if not below:
        return Goodput(value=low.rate_per_s, low=low.rate_per_s, high=None)
    high = below[0]
    part = (low.attained - wanted) / (low.attained - high.attained)
    value = low.rate_per_s * math.exp(part * math.log(high.rate_per_s / low.rate_per_s))
    return Goodput(value=value, low=low.rate_per_s, high=high.rate_per_s)
