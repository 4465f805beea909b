import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twofold.evidence.crossing import find_crossing

# (train_s, tokens, loss)
STEADY = [(10.0, 1000.0, 2.4), (20.0, 2000.0, 2.2), (40.0, 4000.0, 2.0)]


@given(st.floats(2.001, 2.399), st.permutations(STEADY))
def test_a_loss_linear_in_log_tokens_is_inverted_exactly(
    target: float, lengths: list[tuple[float, float, float]]
) -> None:
    crossing = find_crossing(lengths, target)
    expected = 1000 * 2 ** ((2.4 - target) / 0.2)
    assert crossing.tokens == pytest.approx(expected)
    assert crossing.train_s == pytest.approx(expected / 100)
    assert crossing.low_s == crossing.high_s == crossing.train_s
    assert crossing.note == ""


def test_time_need_not_be_proportional_to_tokens() -> None:
    lengths = [(15.0, 1000.0, 2.4), (25.0, 2000.0, 2.2), (45.0, 4000.0, 2.0)]
    crossing = find_crossing(lengths, 2.1)
    assert crossing.train_s == pytest.approx(25 + 20 * (math.sqrt(2) - 1))


def test_not_reached_is_at_least_the_longest_run() -> None:
    crossing = find_crossing(STEADY, 1.9)
    assert (crossing.train_s, crossing.tokens, crossing.high_s) == (None, None, None)
    assert crossing.low_s == 40.0
    assert crossing.note == "not reached"


def test_below_from_the_start_is_at_most_the_shortest_run() -> None:
    crossing = find_crossing(STEADY, 2.5)
    assert (crossing.train_s, crossing.tokens, crossing.low_s) == (None, None, None)
    assert crossing.high_s == 10.0
    assert "shortest" in crossing.note


def test_several_crossings_bound_the_time_from_both_sides() -> None:
    lengths = [(10, 1000, 2.4), (20, 2000, 2.1), (30, 3000, 2.3), (40, 4000, 2.0)]
    crossing = find_crossing(lengths, 2.2)
    assert crossing.train_s == crossing.low_s
    assert crossing.low_s is not None
    assert crossing.high_s is not None
    assert 10 < crossing.low_s < 20
    assert 30 < crossing.high_s < 40
    assert "2 times" in crossing.note


def test_a_loss_that_rises_again_has_no_upper_bound() -> None:
    crossing = find_crossing([(10, 1000, 2.4), (20, 2000, 2.1), (30, 3000, 2.3)], 2.2)
    assert crossing.train_s is not None
    assert crossing.high_s is None
    assert "again" in crossing.note


def test_below_at_the_start_and_above_in_between() -> None:
    crossing = find_crossing([(10, 1000, 2.1), (20, 2000, 2.3), (30, 3000, 2.0)], 2.2)
    assert crossing.low_s is None
    assert crossing.high_s is not None
    assert 20 < crossing.high_s < 30


def test_two_lengths_are_too_few() -> None:
    crossing = find_crossing(STEADY[:2], 2.3)
    assert (crossing.train_s, crossing.low_s, crossing.high_s) == (None, None, None)
    assert "at least 3" in crossing.note


@given(
    st.lists(st.tuples(st.floats(1.0, 100.0), st.floats(1.5, 3.0)), min_size=3, max_size=8),
    st.floats(1.5, 3.0),
)
def test_bounds_hold_the_reported_time(steps: list[tuple[float, float]], target: float) -> None:
    """Whatever the losses, low <= reported <= high, and all lie within the runs."""
    lengths, train_s = [], 0.0
    for step_s, loss in steps:
        train_s += step_s
        lengths.append((train_s, train_s * 100, loss))
    crossing = find_crossing(lengths, target)
    known = [s for s in (crossing.low_s, crossing.train_s, crossing.high_s) if s is not None]
    assert known == sorted(known)
    assert all(lengths[0][0] <= s <= lengths[-1][0] * (1 + 1e-12) for s in known)
