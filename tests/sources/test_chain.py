"""Sequences as runs of periods."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from twofold.sources.chain import runs


@given(st.lists(st.integers(0, 2), max_size=40), st.integers(1, 8), st.integers(2, 4))
def test_runs_give_the_sequence_back(shapes: list[int], longest: int, fewest: int) -> None:
    place = 0
    for period, turns in runs(shapes, longest=longest, fewest=fewest):
        head = shapes[place : place + period]
        assert shapes[place : place + period * turns] == head * turns
        assert turns == 1 == period or turns >= fewest
        place += period * turns
    assert place == len(shapes)


def test_the_run_that_covers_most_wins() -> None:
    assert runs([1, 2, 1, 2, 1, 2, 3], longest=8, fewest=2) == [(2, 3), (1, 1)]
    assert runs([1, 1, 1, 1], longest=8, fewest=2) == [(1, 4)]
