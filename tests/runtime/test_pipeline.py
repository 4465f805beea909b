"""Stages are the network cut in pieces, and torch's schedules are those that a plan names.

That they train as one process does is in the parity cases.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise
from typing import Any
from unittest.mock import MagicMock

import pytest

pytest.importorskip("torch")

import torch
from torch.distributed.pipelining.stage import _PipelineStageBase

from tests.runtime.parity_cases import GPT2, MODERN
from twofold.model import Model
from twofold.plan import Plan, Stage
from twofold.runtime.train.network import Decoder, initialise
from twofold.runtime.train.parallel.pipeline import (
    filled_up,
    fitting_count,
    part_of_rank,
    schedule_class,
    stages_of_rank,
)
from twofold.runtime.train.support import RULES

PLANS = [
    Plan(micro_batch=1, pipeline_degree=2),
    Plan(micro_batch=1, pipeline_degree=2, schedule="interleaved", virtual_stages=2),
    Plan(
        micro_batch=1,
        pipeline_degree=2,
        stages=(Stage(pool="a", layers=3), Stage(pool="b", layers=1)),
    ),
]


def decoder(model: Model, plan: Plan, rank: int | None) -> Decoder:
    part = None if rank is None else part_of_rank(plan, model.layers, rank)
    network = Decoder(model, attention="sdpa", recompute="none", part=part)
    initialise(network, "gpt2", 7)
    return network


@pytest.mark.parametrize("plan", PLANS, ids=["1f1b", "interleaved", "unlike"])
def test_stages_one_after_the_other_are_the_network(plan: Plan) -> None:
    tokens = torch.arange(32).reshape(2, 16)
    whole = decoder(MODERN, plan, None)
    stages = {
        index: network.view(part)
        for rank in range(plan.num_ranks)
        for network in [decoder(MODERN, plan, rank)]
        for index, part in stages_of_rank(plan, MODERN.layers, rank).items()
    }
    hidden = tokens
    for _, stage in sorted(stages.items()):
        hidden = stage(hidden, tokens)
    assert torch.equal(hidden, whole(tokens))
    named = dict(whole.named_parameters())
    held = [name for stage in stages.values() for name, _ in stage.named_parameters()]
    assert sorted(held) == sorted(named)


def test_first_and_last_stage_hold_the_tied_table_under_one_name() -> None:
    plan = Plan(micro_batch=1, pipeline_degree=2)
    first, last = (decoder(GPT2, plan, rank) for rank in range(2))
    table = dict(first.named_parameters())["embedding.weight"]
    assert torch.equal(table, dict(last.named_parameters())["embedding.weight"])
    assert last.head is not None
    assert torch.equal(last.head.weight, table)
    assert "head.weight" not in dict(last.named_parameters())


def test_rows_that_fill_a_micro_batch_up_have_no_target() -> None:
    rows = torch.arange(5 * 4).reshape(5, 4)
    tokens, targets = filled_up(rows, (3, 2))
    assert tokens.shape == targets.shape == (6, 3)
    assert torch.equal(tokens[:5], rows[:, :-1])
    assert torch.equal(targets[:5], rows[:, 1:])
    assert (targets[5] == -1).all()


@pytest.mark.parametrize("degree", [2, 3, 4, 8])
def test_looped_schedules_get_whole_rounds(degree: int) -> None:
    plan = Plan(micro_batch=1, pipeline_degree=degree, schedule="interleaved", virtual_stages=2)
    for count in range(1, 40):
        fitting = fitting_count(plan, count)
        assert count <= fitting < count + degree
        assert fitting % max(1, fitting // degree) == 0


@pytest.mark.parametrize(("degree", "count"), [(2, 4), (4, 8), (4, 12), (8, 16)])
def test_the_zero_bubble_schedule_is_zb_h1(degree: int, count: int) -> None:
    """Idle time (p - 1)(F + I - W) at equal F, I and W, a third of 1F1B's, and no more
    micro-batches in memory than 1F1B (Qi et al. 2023, table 2)."""
    plan = Plan(micro_batch=1, pipeline_degree=degree, schedule="zb-h1")
    stage = MagicMock(spec=_PipelineStageBase)
    stage.group_size, stage.num_stages, stage.group_rank = degree, degree, 0
    stage.submod = torch.nn.Identity()
    schedule = schedule_class(plan, count)([stage], count, loss_fn=lambda out, target: out)
    orders = {
        rank: [(a.computation_type.value, a.microbatch_index) for a in order if a is not None]
        for rank, order in schedule.pipeline_order.items()
    }
    assert finish(orders) == 3 * count + (degree - 1)
    for order in orders.values():
        held = [(kind == "F") - (kind in "WB") for kind, _ in order]
        assert max(sum(held[: i + 1]) for i in range(len(held))) <= degree


def finish(orders: dict[int, list[tuple[str, int]]]) -> int:
    """When the last rank is done, where forward F, input gradient I and weight gradient W take
    one unit each and B = I + W two."""
    last = max(orders)
    done: dict[tuple[str, int, int], int] = {}
    now: dict[int, int] = defaultdict(int)
    left = {rank: list(order) for rank, order in orders.items()}
    while any(left.values()):
        for rank, order in left.items():
            while order:
                kind, micro = order[0]
                if kind == "F":
                    before = ("F", rank - 1, micro) if rank else None
                elif kind == "W":
                    before = ("I", rank, micro)
                else:
                    before = ("I", rank + 1, micro) if rank < last else ("F", rank, micro)
                if before is not None and before not in done:
                    break
                start = max(now[rank], done[before] if before else 0)
                now[rank] = start + (2 if kind == "B" else 1)
                done["I" if kind == "B" else kind, rank, micro] = now[rank]
                order.pop(0)
    return max(now.values())


@pytest.mark.parametrize(
    ("levers", "lever"),
    [
        ({"compile": True}, "compile"),
        ({"zero_stage": 1, "data_degree": 2}, "zero_stage"),
        ({"virtual_stages": 2}, "virtual_stages"),
        ({"virtual_stages": 2, "schedule": "zb-h1"}, "virtual_stages"),
    ],
    ids=["compile", "zero", "chunks", "zero-bubble chunks"],
)
def test_what_a_pipeline_cannot_do_is_refused_by_name(levers: dict[str, Any], lever: str) -> None:
    plan = Plan(micro_batch=1, pipeline_degree=2, **levers)
    assert lever in [rule.lever for rule in RULES if rule.refuses(plan, MODERN)]


def test_one_stage_follows_the_other() -> None:
    """Interleaved: chunk c of rank r is stage c P + r (Narayanan et al. 2021)."""
    plan = PLANS[1]
    stages = stages_of_rank(plan, 4, 0) | stages_of_rank(plan, 4, 1)
    assert list(stages_of_rank(plan, 4, 0)) == [0, 2]
    blocks = [block for _, part in sorted(stages.items()) for block in part.blocks]
    assert all(after == before + 1 for before, after in pairwise(blocks))
    assert [stages[i].is_first for i in range(4)] == [True, False, False, False]
    assert [stages[i].is_last for i in range(4)] == [False, False, False, True]
