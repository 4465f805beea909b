"""From values to pixels, and the round values worth a tick."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Maps low..high to the pixels start..end, linearly or by the logarithm."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        if self.log:
            value, low, high = math.log(value), math.log(self.low), math.log(self.high)
        else:
            low, high = self.low, self.high
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def clamp(self, value: float) -> float:
        return self.at(min(max(value, self.low), self.high))

    def ticks(self, most: int) -> list[float]:
        """At most `most` round values inside the range."""
        if self.log and self.high >= 5 * self.low:
            return self._log_ticks(most)
        step = _round_step((self.high - self.low) / most)
        first = math.ceil(self.low / step - 1e-9)
        return self._inside((first + i) * step for i in range(most + 2))[:most]

    def _log_ticks(self, most: int) -> list[float]:
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        for mantissas in ((1, 1.5, 2, 3, 4, 5, 7), (1, 2, 3, 5), (1, 2, 5), (1, 3)):
            ticks = self._inside(m * 10.0**e for e in decades for m in mantissas)
            if len(ticks) <= most:
                return ticks
        stride = math.ceil(len(decades) / most)
        return self._inside(10.0**e for e in decades if e % stride == 0)

    def _inside(self, values: Iterable[float]) -> list[float]:
        """Those within the range, the ends included in spite of rounding."""
        slack = 1e-9 * (self.low if self.log else self.high - self.low)
        return [v for v in values if self.low - slack <= v <= self.high + slack]


def scale_for(
    values: Sequence[float],
    start: float,
    end: float,
    *,
    log: bool = False,
    margin: float = 0.06,
    least_ratio: float = 1.5,
) -> Scale:
    """A scale that holds all values with some air; a single value is put in the middle.

    A log scale spans at least `least_ratio`, so that noise does not look like a difference.
    """
    low, high = min(values), max(values)
    if log:
        air = max((high / low) ** margin, math.sqrt(least_ratio * low / high))
        return Scale(low=low / air, high=high * air, start=start, end=end, log=True)
    air = (high - low) * margin or abs(high) * 0.1 or 1.0
    return Scale(low=low - air, high=high + air, start=start, end=end)


def _round_step(raw: float) -> float:
    power = 10.0 ** math.floor(math.log10(raw))
    return next((d * power for d in (1, 2, 2.5, 5) if d * power >= raw), 10 * power)
