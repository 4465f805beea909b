"""What an engine's files carry of a plan is read back from them, lever by lever."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tests.engines.export.cases import GPT2, LLAMA, accepted_cases, case
from twofold.engines.export.effective import carried_plan, effective_plan
from twofold.engines.export.registry import ENGINES
from twofold.plan import Plan, Share, Stage
from twofold.policy.ranks import blocks_of_stages


@pytest.mark.parametrize("name", ENGINES)
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
)
@given(data=st.data())
def test_a_plan_comes_back_as_it_went(name: str, data: st.DataObject) -> None:
    engine = ENGINES[name]
    one = data.draw(accepted_cases(name))
    assume(engine.refusal(one) is None)
    files = engine.write(one)
    expected = carried_plan(one.plan, one.model, one.workload, ignores=engine.ignores)
    read = engine.read(files)
    if (
        name == "torchtitan" and one.plan.pipeline_degree > 1
    ):  # equal stages are stated or not, and the same
        assert blocks_of_stages(read, one.model.layers) == blocks_of_stages(
            expected, one.model.layers
        )
        return
    assert effective_plan(read, one.model, one.workload) == expected


def test_levers_that_do_nothing_are_at_their_defaults() -> None:
    plan = Plan(
        micro_batch=1,
        pool="a",
        schedule="gpipe",
        sequence_parallel=True,
        shard_degree=4,
        expert_degree=2,
        recompute_layers=3,
        orthogonal_precision="fp32",
        exchange_precision="int8",
        shares=(Share(pool="b", ranks=1, sequences=64),),
    )
    assert effective_plan(plan, LLAMA, case(plan).workload) == Plan(micro_batch=1, pool="b")


def test_levers_that_do_something_stay() -> None:
    plan = Plan(
        micro_batch=1,
        data_degree=4,
        pipeline_degree=2,
        schedule="gpipe",
        zero_stage=1,
        shard_degree=2,
        recompute="full",
        recompute_layers=1,
        stages=(Stage(pool="a", layers=1), Stage(pool="a", layers=3)),
    )
    assert effective_plan(plan, GPT2, case(plan, GPT2).workload) == plan
