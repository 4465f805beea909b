"""Exact shares: how many sequences each data rank takes so that the slowest is done earliest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareCurve:
    """Equal data ranks: `finish_s[j]` is when one is done with `least + j` sequences. It never
    falls, and ends at the largest share that fits the memory."""

    ranks: int
    least: int
    finish_s: Array

    @property
    def most(self) -> int:
        return self.least + len(self.finish_s) - 1

    def done_s(self, share: int) -> float:
        return float(self.finish_s[share - self.least])


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedOut:
    """Of each curve, how many ranks take how many sequences, the larger shares first."""

    shares: tuple[tuple[tuple[int, int], ...], ...]
    slowest_s: float


def best_shares(total: int, curves: Sequence[ShareCurve]) -> SharedOut | None:
    """Whole shares that sum to `total` with the least finish of the slowest rank; None where
    none fit.

    A time T is enough if the sequences that all ranks finish by it are at least `total`; the
    least such T is one of the finish times, found by bisection. What is over is taken from
    those that would be done last. Exact for curves that never fall.
    """
    if not all(len(curve.finish_s) for curve in curves):
        return None
    least = sum(curve.ranks * curve.least for curve in curves)
    most = sum(curve.ranks * curve.most for curve in curves)
    if not least <= total <= most:
        return None
    times = np.unique(np.concatenate([curve.finish_s for curve in curves]))
    times = times[times >= max(float(curve.finish_s[0]) for curve in curves)]
    low, high = 0, len(times) - 1
    while low < high:
        middle = (low + high) // 2
        if _done_by(float(times[middle]), curves) >= total:
            high = middle
        else:
            low = middle + 1
    level = [_share_by(float(times[low]), curve) for curve in curves]
    lowered = [0] * len(curves)
    excess = sum(c.ranks * share for c, share in zip(curves, level, strict=True)) - total
    while excess:
        place = max(
            (i for i, curve in enumerate(curves) if level[i] > curve.least),
            key=lambda i: curves[i].done_s(level[i]),
        )
        lowered[place] = min(excess, curves[place].ranks)
        excess -= lowered[place]
        if lowered[place] == curves[place].ranks:
            level[place], lowered[place] = level[place] - 1, 0
    shares = tuple(
        _counts(curve.ranks, top, fewer)
        for curve, top, fewer in zip(curves, level, lowered, strict=True)
    )
    slowest = max(curve.done_s(counts[0][1]) for curve, counts in zip(curves, shares, strict=True))
    return SharedOut(shares=shares, slowest_s=slowest)


def even_split(total: int, curves: Sequence[ShareCurve]) -> SharedOut | None:
    """Equal shares on all ranks, the first ones larger by one where they do not divide; None
    where they do not fit."""
    ranks = sum(curve.ranks for curve in curves)
    base, larger = divmod(total, ranks)
    shares = []
    for curve in curves:
        top = min(larger, curve.ranks)
        larger -= top
        counts = tuple((n, b) for n, b in ((top, base + 1), (curve.ranks - top, base)) if n)
        if any(not curve.least <= share <= curve.most for _, share in counts):
            return None
        shares.append(counts)
    slowest = max(curve.done_s(counts[0][1]) for curve, counts in zip(curves, shares, strict=True))
    return SharedOut(shares=tuple(shares), slowest_s=slowest)


def _share_by(time_s: float, curve: ShareCurve) -> int:
    return curve.least - 1 + int(np.searchsorted(curve.finish_s, time_s, side="right"))


def _done_by(time_s: float, curves: Sequence[ShareCurve]) -> int:
    return sum(curve.ranks * _share_by(time_s, curve) for curve in curves)


def _counts(ranks: int, top: int, fewer: int) -> tuple[tuple[int, int], ...]:
    """`fewer` of the ranks take one less than `top`."""
    return tuple((n, share) for n, share in ((ranks - fewer, top), (fewer, top - 1)) if n)
