"""The order of runs is counterbalanced: over blocks no arm is always first."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from twofold.measure.blocks import run_order


@given(st.integers(1, 6), st.integers(0, 20))
def test_every_arm_runs_once_a_block(num_arms: int, block: int) -> None:
    assert sorted(run_order(num_arms, block)) == list(range(num_arms))


@given(st.integers(2, 6))
def test_over_whole_turns_every_arm_is_equally_often_in_every_place(num_arms: int) -> None:
    orders = [run_order(num_arms, block) for block in range(num_arms * 2)]
    for place in range(num_arms):
        assert set(Counter(order[place] for order in orders).values()) == {2}


def test_two_arms_go_there_and_back() -> None:
    assert [run_order(2, block) for block in range(4)] == [[0, 1], [1, 0], [1, 0], [0, 1]]
