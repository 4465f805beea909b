"""Quantities as people write them, to SI and back. SI inside, human units only at the edges.

`k M G T P` are decimal, `Ki Mi Gi Ti` are binary; letter case decides nothing else.
"""

from __future__ import annotations

import math
import re

from twofold.errors import InputError

_DECIMAL = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15}
_BINARY = {"Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40}
_SECONDS = {"ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_QUANTITY = re.compile(r"^\s*([0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)\s*([A-Za-z]*)\s*$")
_MONTH = re.compile(r"^(20[0-9]{2})-([0-9]{2})(?:-([0-9]{2}))?$")


def parse_count(text: str) -> int:
    """`"1.5M"` -> 1500000. Decimal prefixes, as tokens and parameters are counted; the field's B
    for a billion too."""
    number, unit = _split(text, "a count such as 20M or 2T")
    unit = "G" if unit == "B" else unit
    if unit not in _DECIMAL:
        raise _bad(text, "a count such as 20M or 2T")
    return round(number * _DECIMAL[unit])


def parse_bytes(text: str) -> int:
    """`"1GB"` -> 10**9, `"1GiB"` -> 2**30."""
    form = "bytes such as 80GB or 80GiB"
    number, unit = _split(text, form)
    if not unit.endswith("B"):
        raise _bad(text, form)
    prefix = unit[:-1]
    scale = _BINARY.get(prefix, _DECIMAL.get(prefix))
    if scale is None:
        raise _bad(text, form)
    return round(number * scale)


def parse_seconds(text: str) -> float:
    """`"8min"` -> 480.0."""
    form = "a duration such as 90s, 8min or 2h"
    number, unit = _split(text, form)
    if unit not in _SECONDS:
        raise _bad(text, form)
    return number * _SECONDS[unit]


def parse_watts(text: str) -> float:
    """`"5MW"` -> 5e6."""
    form = "a power such as 700W, 20kW or 5MW"
    number, unit = _split(text, form)
    if not unit.endswith("W") or unit[:-1] not in _DECIMAL:
        raise _bad(text, form)
    return number * _DECIMAL[unit[:-1]]


def parse_month(text: str) -> str:
    """`"2026-11"` or a day in it, checked; as written."""
    match = _MONTH.match(text)
    if match is None or not 1 <= int(match[2]) <= 12 or not 1 <= int(match[3] or 1) <= 31:
        raise InputError(
            f"'{text}' is not a month or day such as 2026-11 or 2026-11-24",
            help="write year and month as numbers",
        )
    return text


def format_quantity(value: float, unit: str = "") -> str:
    """Three significant digits with a decimal prefix: `format_quantity(3.35e12, "B/s")`."""
    for prefix, scale in reversed(_DECIMAL.items()):
        if abs(value) >= scale * 0.9995:
            return f"{_three_digits(value / scale)} {prefix}{unit}".rstrip()
    return f"{_three_digits(value)} {unit}".rstrip()


def format_bytes(value: float) -> str:
    """Binary prefixes, because that is how memory is bought: `"1.5 GiB"`."""
    for prefix, scale in reversed(_BINARY.items()):
        if abs(value) >= scale:
            return f"{_three_digits(value / scale)} {prefix}B"
    return f"{value:.0f} B"


def format_seconds(value: float) -> str:
    """The unit a person would choose: `"12.3 ms"`, `"45 s"`, `"3 min 46 s"`, `"1 h 05 min"`,
    `"2.12 days"`."""
    if value < 1.0:
        return f"{_three_digits(value * 1e3)} ms"
    if value < 120.0:
        return f"{_three_digits(value)} s"
    minutes, seconds = divmod(round(value), 60)
    if minutes < 120:
        return f"{minutes} min {seconds:02d} s" if seconds else f"{minutes} min"
    hours, rest = divmod(round(value / 60.0), 60)
    return f"{hours} h {rest:02d} min" if hours < 48 else f"{_three_digits(value / 86400.0)} days"


def _split(text: str, form: str) -> tuple[float, str]:
    match = _QUANTITY.match(text)
    if match is None or not math.isfinite(float(match[1])):
        raise _bad(text, form)
    return float(match[1]), match[2]


def _bad(text: str, form: str) -> InputError:
    return InputError(f"'{text}' is not {form}", help="write a number and a unit, without spaces")


def _three_digits(value: float) -> str:
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.3g}"
