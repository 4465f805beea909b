"""Scales hold their values, and ticks are round, few and inside."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twofold.report.figures.scale import Scale, scale_for

positive = st.floats(min_value=1e-9, max_value=1e15)


@given(st.lists(positive, min_size=1, max_size=5), st.booleans(), st.integers(2, 8))
def test_values_lie_inside_and_ticks_too(values: list[float], log: bool, most: int) -> None:
    scale = scale_for(values, 40, 700, log=log)
    assert all(40 <= scale.at(value) <= 700 for value in values)
    ticks = scale.ticks(most)
    assert len(ticks) <= most
    assert ticks == sorted(ticks)
    assert all(40 - 1e-6 <= scale.at(tick) <= 700 + 1e-6 for tick in ticks)


@given(positive)
def test_one_value_alone_is_put_in_the_middle(value: float) -> None:
    assert scale_for([value], 0, 100, log=True).at(value) == pytest.approx(50)
    assert scale_for([value], 0, 100).at(value) == pytest.approx(50)


def test_equal_factors_are_equally_long_on_a_log_scale() -> None:
    scale = Scale(low=1, high=100, start=0, end=200, log=True)
    assert scale.at(10) - scale.at(1) == pytest.approx(scale.at(100) - scale.at(10))
    assert scale.at(10) == pytest.approx(100)


def test_clamp_keeps_outliers_at_the_edge() -> None:
    scale = Scale(low=1, high=2, start=100, end=0)
    assert scale.clamp(5) == 0
    assert scale.clamp(-5) == 100


@pytest.mark.parametrize(
    ("low", "high", "log", "most", "ticks"),
    [
        (0, 10, False, 6, [0, 2, 4, 6, 8, 10]),
        (8, 16.5, True, 5, [8, 10, 12, 14, 16]),
        (1, 1000, True, 5, [1, 10, 100, 1000]),
        (9, 45.5, True, 6, [10, 15, 20, 30, 40]),
        (0.3, 11, True, 4, [0.3, 1, 3, 10]),
        (1e-6, 1e6, True, 5, [1e-6, 1e-3, 1, 1e3, 1e6]),
    ],
)
def test_ticks_are_round(low: float, high: float, log: bool, most: int, ticks: list[float]) -> None:
    scale = Scale(low=low, high=high, start=0, end=1, log=log)
    assert scale.ticks(most) == pytest.approx(ticks)
