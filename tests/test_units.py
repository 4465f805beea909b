"""Quantities as people write them."""

from __future__ import annotations

import pytest

from twofold.units import format_seconds


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0.0123, "12.3 ms"), (1.92, "1.92 s"), (226, "3 min 46 s"), (480, "8 min"),
        (3900, "65 min"), (7199.9, "2 h 00 min"), (100_680, "27 h 58 min"),
        (95_367 * 1.92, "2.12 days"), (1229 * 86400, "1229 days"),
    ],
)  # fmt: skip
def test_durations_keep_three_digits_or_their_remainder(seconds: float, told: str) -> None:
    assert format_seconds(seconds) == told
