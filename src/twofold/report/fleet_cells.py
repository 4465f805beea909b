"""Figures of fleet plans as people say them; `unknown` where one is."""

from __future__ import annotations

import math

from twofold.search.options import Objective, Option
from twofold.search.ratio_interval import Interval
from twofold.units import format_bytes, format_quantity, format_seconds

UNKNOWN = "unknown"
_WORDS = {
    "time": ("faster", "slower"),
    "cost": ("cheaper", "dearer"),
    "energy": ("less energy", "more energy"),
    "carbon": ("less carbon", "more carbon"),
}
_JOULES_PER_MWH = 3.6e9
_DAY_S = 86400.0


def memory_cell(option: Option) -> str:
    peak = option.estimate.outcome.peak_memory_bytes
    if peak is None:
        return UNKNOWN
    missing = "" if option.fits else " TOO BIG"
    return f"{format_bytes(peak)} of {format_bytes(option.usable_bytes)}{missing}"


def share_cell(option: Option) -> str:
    """The same in short: of what is usable."""
    peak = option.estimate.outcome.peak_memory_bytes
    if peak is None:
        return UNKNOWN
    return f"{peak / option.usable_bytes:.0%}" + ("" if option.fits else " TOO BIG")


def dollars(value: float | None) -> str:
    return UNKNOWN if value is None else "$" + format_quantity(value).replace(" ", "")


def megawatt_hours(joules: float | None) -> str:
    return UNKNOWN if joules is None else _short(joules / _JOULES_PER_MWH)


def tonnes(kilograms: float | None) -> str:
    return UNKNOWN if kilograms is None else _short(kilograms / 1e3)


def span(interval: Interval) -> str:
    """`34.1-52.0 days`; without an upper end, `over 34.1 days`."""
    if not math.isfinite(interval.high):
        return f"over {format_seconds(interval.low)}"
    if interval.low >= 2 * _DAY_S:
        return f"{_short(interval.low / _DAY_S)}-{_short(interval.high / _DAY_S)} days"
    return f"{format_seconds(interval.low)} - {format_seconds(interval.high)}"


def _short(value: float) -> str:
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def better(ratio: Interval, objective: Objective) -> str:
    """`1.67x (1.30-2.14) faster`; below 1 it is the other way round, and said so."""
    better, worse = _WORDS[objective]
    if not math.isfinite(ratio.high):
        return f"{1 / ratio.value:.3g}x {worse}, if it gets there at all"
    if ratio.value >= 1:
        return f"{times(ratio)} {better}"
    return (
        f"{times(Interval(value=1 / ratio.value, low=1 / ratio.high, high=1 / ratio.low))} {worse}"
    )


def times(ratio: Interval) -> str:
    return f"{ratio.value:.2f}x ({ratio.low:.2f}-{ratio.high:.2f})"
