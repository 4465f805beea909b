"""Shares sum exactly, and no other whole shares finish earlier."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twofold.errors import InputError
from twofold.plan import Plan, Share, Stage
from twofold.policy import (
    balanced_shares,
    blocks_of_stages,
    even_shares,
    micro_batches,
    num_micro_steps,
    place_of,
    rank_of,
    shares_of,
)

times = st.floats(0.01, 10.0)


@given(st.integers(0, 500), st.integers(1, 40))
def test_even_shares_sum_and_differ_by_at_most_one(total: int, ranks: int) -> None:
    shares = even_shares(total, ranks)
    assert sum(shares) == total
    assert max(shares) - min(shares) <= 1


@given(
    st.lists(st.tuples(times, st.floats(0.0, 5.0), st.integers(1, 9)), min_size=1, max_size=3),
    st.integers(1, 12),
)
def test_no_other_shares_finish_earlier(ranks: list[tuple[float, float, int]], total: int) -> None:
    slope, fixed, most = zip(*ranks, strict=True)
    feasible = [
        shares
        for shares in itertools.product(*(range(1, m + 1) for m in most))
        if sum(shares) == total
    ]
    if not feasible:
        with pytest.raises(InputError):
            balanced_shares(total, slope, fixed_s=fixed, most=most)
        return

    def finish_s(shares: tuple[int, ...]) -> float:
        return max(f + s * n for f, s, n in zip(fixed, slope, shares, strict=True))

    found = balanced_shares(total, slope, fixed_s=fixed, most=most)
    assert found in feasible
    assert finish_s(found) == pytest.approx(min(finish_s(shares) for shares in feasible))


def test_shares_follow_speed() -> None:
    assert balanced_shares(48, [1.0, 1.0, 3.0]) == (21, 21, 6)


def test_a_plan_s_shares_are_those_it_names() -> None:
    shares = (Share(pool="fast", ranks=2, sequences=20), Share(pool="slow", ranks=1, sequences=8))
    plan = Plan(micro_batch=10, data_degree=3, shares=shares)
    assert shares_of(plan, 48) == (20, 20, 8)
    assert num_micro_steps(plan, (20, 20, 8)) == 2
    assert micro_batches(8, 2) == (4, 4)
    with pytest.raises(InputError, match="48 sequences and the global batch is 50"):
        shares_of(plan, 50)


def test_a_share_too_small_for_the_micro_steps_is_refused() -> None:
    with pytest.raises(InputError, match="cannot be cut into 20"):
        num_micro_steps(Plan(micro_batch=1, data_degree=2), (20, 2))


@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(1, 3))
def test_every_rank_has_one_place(tensor: int, context: int, data: int, pipeline: int) -> None:
    plan = Plan(
        micro_batch=1,
        tensor_degree=tensor,
        context_degree=context,
        data_degree=data,
        pipeline_degree=pipeline,
    )
    places = [place_of(rank, plan) for rank in range(plan.num_ranks)]
    assert len(set(places)) == plan.num_ranks
    assert [rank_of(place, plan) for place in places] == list(range(plan.num_ranks))


def test_stages_hold_every_block_once() -> None:
    plan = Plan(micro_batch=1, pipeline_degree=2, virtual_stages=2)
    assert [list(blocks) for blocks in blocks_of_stages(plan, 6)] == [[0, 1], [2, 3], [4], [5]]
    unlike = (Stage(pool="fast", layers=5), Stage(pool="slow", layers=1))
    plan = Plan(micro_batch=1, pipeline_degree=2, stages=unlike)
    assert [len(blocks) for blocks in blocks_of_stages(plan, 6)] == [5, 1]
    with pytest.raises(InputError, match="stages hold 6 layers"):
        blocks_of_stages(plan, 7)
    with pytest.raises(InputError, match="8 stages for 6 layers"):
        blocks_of_stages(Plan(micro_batch=1, pipeline_degree=8), 6)
