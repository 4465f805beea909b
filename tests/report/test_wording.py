"""Numbers in words, and what an interval allows to be said."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twofold.evidence.records import Ratio
from twofold.report import wording


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0"), (2, "2.00"), (1234.5, "1230"), (0.01234, "0.0123"), (-0.5, "−0.500"),
        (99.96, "100"), (9.996, "10.0"), (0.99999, "1.00"), (float("nan"), "not finite"),
        (float("inf"), "not finite"), (149_600_000, "150000000"),
    ],
)  # fmt: skip
def test_three_significant_digits(value: float, shown: str) -> None:
    assert wording.digits(value) == shown


@given(st.floats(min_value=1e-6, max_value=1e12))
def test_digits_are_within_half_a_unit_of_the_third(value: float) -> None:
    assert float(wording.digits(value)) == pytest.approx(value, rel=0.00501)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (5.84e-5, "58.4 µs"), (0.0303, "30.3 ms"), (1.0, "1.00 s"), (599, "599 s"),
        (601, "10.0 min"), (7199, "120 min"), (7200, "2.00 h"), (10 * 86400, "10.0 days"),
        (0, "0 s"),
    ],
)  # fmt: skip
def test_seconds_in_the_unit_a_person_would_choose(value: float, shown: str) -> None:
    assert wording.seconds(value).replace(wording.SPACE, " ") == shown


def test_quantities_carry_their_unit_on_the_same_line() -> None:
    assert wording.quantity(1.8e11, "flop/s") == f"180{wording.SPACE}Gflop/s"
    assert wording.count(409_600, "tokens") == "410 k tokens".replace(" ", wording.SPACE)
    assert wording.count(8) == "8"
    assert wording.size(2.5e8) == f"238{wording.SPACE}MiB"
    assert wording.percent(0.069) == f"6.90{wording.SPACE}%"
    assert wording.signed_percent(-0.0655) == f"−6.55{wording.SPACE}%"


@pytest.mark.parametrize(
    ("low", "value", "high", "start"),
    [
        (2.0, 2.2, 2.4, "At least 2×"),
        (1.9, 2.2, 2.4, "About 2×"),
        (1.6, 1.7, 1.8, "Faster, and less than 2×"),
        (0.9, 1.5, 2.4, "No gain shown"),
        (1.0, 1.2, 1.4, "No gain shown"),
        (0.5, 0.6, 0.7, "Slower"),
        (None, 3.0, None, "One pair gives no interval"),
    ],
)
def test_a_gain_is_said_by_the_bound_and_not_by_the_mean(
    low: float | None, value: float, high: float | None, start: str
) -> None:
    ratio = Ratio(value=value, low=low, high=high, pairs=((0, value),), spread=None)
    assert wording.gain(ratio).startswith(start)


def test_a_moment_is_readable_and_other_text_is_left_alone() -> None:
    assert wording.moment("2026-11-24T06:30:00+00:00") == "24 November 2026, 06:30 UTC"
    assert wording.moment("yesterday") == "yesterday"
