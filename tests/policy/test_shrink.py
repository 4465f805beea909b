"""Going on with fewer data ranks: whole groups, the same global batch, a plan that can run."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twofold.errors import InputError, JobFailed
from twofold.plan import Plan, Share, Stage
from twofold.policy import num_micro_steps, place_of, shares_of, shrink


def test_even_shares_stay_even() -> None:
    smaller = shrink(Plan(micro_batch=4, data_degree=3), [2], 12)
    assert smaller.plan == Plan(micro_batch=4, data_degree=2)
    assert smaller.kept == (0, 1)
    assert shares_of(smaller.plan, 12) == (6, 6)


def test_unlike_shares_keep_their_ratios_and_add_up() -> None:
    shares = (Share(pool="fast", ranks=2, sequences=21), Share(pool="slow", ranks=1, sequences=6))
    plan = Plan(micro_batch=21, data_degree=3, shares=shares)
    smaller = shrink(plan, [0], 48).plan
    assert [share.pool for share in smaller.shares] == ["fast", "slow"]
    assert shares_of(smaller, 48) == (38, 10)
    alone = shrink(plan, [2], 48).plan
    assert alone.shares == (Share(pool="fast", ranks=2, sequences=24),)


def test_shares_that_cannot_be_cut_alike_give_way_to_even_ones() -> None:
    shares = (Share(pool="a", ranks=2, sequences=40), Share(pool="b", ranks=1, sequences=1))
    plan = Plan(micro_batch=40, data_degree=3, shares=shares)
    assert shares_of(shrink(plan, [0], 81).plan, 81) == (41, 40)


def test_the_micro_batch_grows_where_even_shares_cannot_be_cut_alike_either() -> None:
    smaller = shrink(Plan(micro_batch=1, data_degree=3), [0], 9).plan
    assert smaller == Plan(micro_batch=2, data_degree=2)
    assert num_micro_steps(smaller, shares_of(smaller, 9)) == 3


def test_local_updates_end_where_one_rank_is_left_and_stay_where_two_are() -> None:
    plan = Plan(
        micro_batch=2,
        data_degree=3,
        local_steps=8,
        exchange_fragments=2,
        exchange_precision="int8",
    )
    assert shrink(plan, [1, 2], 6).plan == Plan(micro_batch=2)
    assert shrink(plan, [2], 6).plan == replace(plan, data_degree=2)


def test_a_model_parallel_group_goes_on_whole_or_not_at_all() -> None:
    plan = Plan(micro_batch=2, data_degree=2, tensor_degree=2, pipeline_degree=2)
    lost = [rank for rank in range(8) if place_of(rank, plan).data == 1][:1]
    smaller = shrink(plan, lost, 8)
    assert smaller.plan.data_degree == 1
    assert [place_of(rank, plan).data for rank in smaller.kept] == [0, 0, 0, 0]
    with pytest.raises(JobFailed, match="a part of every data rank"):
        shrink(plan, [0, *lost], 8)


def test_pipeline_stages_keep_their_machines() -> None:
    stages = (Stage(pool="a", layers=3), Stage(pool="b", layers=1))
    plan = Plan(micro_batch=2, data_degree=2, pipeline_degree=2, stages=stages)
    smaller = shrink(plan, [0], 4)
    assert smaller.plan.stages == stages
    assert smaller.kept == (1, 3)


def test_spread_experts_need_ranks_that_they_divide() -> None:
    plan = Plan(micro_batch=2, data_degree=4, expert_degree=2)
    assert shrink(plan, [3, 2], 8).plan.data_degree == 2
    with pytest.raises(JobFailed, match="experts are spread over 2"):
        shrink(plan, [3], 8)


def test_a_shard_group_that_no_longer_divides_becomes_all_ranks() -> None:
    plan = Plan(micro_batch=2, data_degree=4, zero_stage=3, shard_degree=2)
    assert shrink(plan, [3], 12).plan.shard_degree == 0
    assert shrink(plan, [2, 3], 12).plan.shard_degree == 2


@given(st.data())
def test_what_is_left_can_always_be_cut_into_micro_batches(data: st.DataObject) -> None:
    ranks = data.draw(st.integers(2, 6))
    sequences = data.draw(st.lists(st.integers(1, 30), min_size=ranks, max_size=ranks))
    plan = Plan(
        micro_batch=data.draw(st.integers(1, max(sequences))),
        data_degree=ranks,
        shares=tuple(Share(pool="p", ranks=1, sequences=share) for share in sequences),
    )
    lost = data.draw(st.sets(st.integers(0, ranks - 1), min_size=1, max_size=ranks - 1))
    try:
        num_micro_steps(plan, sequences)
    except InputError:
        return
    smaller = shrink(plan, lost, sum(sequences))
    shares = shares_of(smaller.plan, sum(sequences))
    assert sum(shares) == sum(sequences)
    assert num_micro_steps(smaller.plan, shares) >= 1
    assert len(smaller.kept) == smaller.plan.num_ranks == ranks - len(lost)
