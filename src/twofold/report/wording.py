"""Numbers and claims in words: three significant digits, always with the unit.

A number and its unit are joined by a no-break space, so that no line ends between them.
"""

from __future__ import annotations

import math
from datetime import datetime

from twofold.evidence.records import Ratio

SPACE = "\u00a0"
SURE = f"95{SPACE}%"
"""The confidence of every interval and bound on the page."""

_LONG_TIMES = ((86400.0, "days"), (3600.0, "h"), (60.0, "min"))
_DECIMAL = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_BINARY = ((2.0**40, "TiB"), (2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB"))
_LONGEST_NAME = 40


def digits(value: float, significant: int = 3) -> str:
    """`2.0` -> `2.00`, `1234.5` -> `1230`, `0.0123` -> `0.0123`; never an exponent."""
    if not math.isfinite(value):
        return "not finite"
    if value == 0:
        return "0"
    exponent = math.floor(math.log10(abs(value)))
    rounded = round(value, significant - 1 - exponent)
    exponent = math.floor(math.log10(abs(rounded)))
    text = f"{rounded:.{max(0, min(9, significant - 1 - exponent))}f}"
    return text.replace("-", "−")


def short(value: float) -> str:
    """For axes: no trailing zeros."""
    text = digits(value)
    return text.rstrip("0").rstrip(".") if "." in text else text


def times(value: float) -> str:
    return f"{digits(value)}×"


def span(low: float, high: float) -> str:
    return f"{digits(low)} to {digits(high)}"


def interval(ratio: Ratio) -> str:
    if ratio.low is None or ratio.high is None:
        return "no interval from one pair"
    return f"{SURE} interval {span(ratio.low, ratio.high)}"


def bounds(ratio: Ratio) -> str:
    if ratio.low is None or ratio.high is None:
        return "no interval"
    return span(ratio.low, ratio.high)


def pairs(ratio: Ratio) -> str:
    return plural(len(ratio.pairs), "pair")


def plural(number: int, noun: str) -> str:
    return f"{number}{SPACE}{noun}" if number == 1 else f"{number}{SPACE}{noun}s"


def seconds(value: float) -> str:
    if not math.isfinite(value):
        return "not finite"
    if 0 < abs(value) < 1e-3:
        return f"{digits(value * 1e6)}{SPACE}µs"
    if 0 < abs(value) < 1.0:
        return f"{digits(value * 1e3)}{SPACE}ms"
    for size_s, unit in _LONG_TIMES:
        if abs(value) >= (2 if unit == "h" else 10) * size_s:
            return f"{digits(value / size_s)}{SPACE}{unit}"
    return f"{digits(value)}{SPACE}s"


def quantity(value: float, unit: str) -> str:
    """With a decimal prefix: `quantity(1.8e11, "flop/s")` -> `180 Gflop/s`."""
    for scale, prefix in _DECIMAL:
        if abs(value) >= scale * 0.9995:
            return f"{digits(value / scale)}{SPACE}{prefix}{unit}"
    return f"{digits(value)}{SPACE}{unit}"


def count(value: float, noun: str = "") -> str:
    """`count(409600, "tokens")` -> `410 k tokens`; small whole numbers as they are."""
    words = str(int(value)) if abs(value) < 1000 and value == int(value) else quantity(value, "")
    return f"{words.rstrip()}{SPACE}{noun}".rstrip()


def size(value: float) -> str:
    """Bytes with binary prefixes."""
    for scale, unit in _BINARY:
        if abs(value) >= scale:
            return f"{digits(value / scale)}{SPACE}{unit}"
    return f"{digits(value)}{SPACE}B"


def nats(value: float) -> str:
    return f"{digits(value)}{SPACE}nats"


def percent(fraction: float) -> str:
    return f"{digits(100 * fraction)}{SPACE}%"


def signed(value: float) -> str:
    return f"{'+' if value > 0 else ''}{digits(value)}"


def signed_percent(fraction: float) -> str:
    return f"{signed(100 * fraction)}{SPACE}%"


def setting(value: float) -> str:
    """A hyper-parameter as a person wrote it."""
    return f"{value:g}"


def clip(name: str) -> str:
    """A name that someone chose, cut where it would take over the page."""
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1].rstrip() + "…"


def sentence(words: str) -> str:
    """A reason as a sentence of its own."""
    closed = words if words.endswith((".", "!", "?")) else words + "."
    return closed[:1].upper() + closed[1:]


def moment(iso: str) -> str:
    """`2026-11-24T06:30:00+00:00` -> `24 November 2026, 06:30 UTC`; other text as it is."""
    try:
        when = datetime.fromisoformat(iso)
    except ValueError:
        return iso
    return f"{when.day} {when:%B %Y, %H:%M} {when.tzname() or ''}".rstrip()


def gain(ratio: Ratio) -> str:
    """What the interval allows to be said, and no more."""
    if ratio.low is None or ratio.high is None:
        return "One pair gives no interval, so nothing can be said of a gain."
    if ratio.low >= 2:
        return f"At least 2×: the lower bound of the interval is {times(ratio.low)}."
    if ratio.low > 1 and ratio.high >= 2:
        return "About 2×: the interval holds 2."
    if ratio.low > 1:
        return f"Faster, and less than 2×: between {times(ratio.low)} and {times(ratio.high)}."
    if ratio.high < 1:
        return f"Slower: between {times(ratio.low)} and {times(ratio.high)}."
    return "No gain shown: the interval holds 1, which is no change."
