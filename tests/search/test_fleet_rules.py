"""A single plan that breaks a rule is refused by the rule's name, with what to do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.search.fleet_problems import dense_model, expert_model, problem
from twofold.errors import InputError
from twofold.plan import Plan
from twofold.search import check_fleet_plan
from twofold.search.fleet_rules import RULES

PLAN = Plan(data_degree=16, micro_batch=1, precision="bf16")


def test_a_legal_plan_passes() -> None:
    check_fleet_plan(problem(), PLAN)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"data_degree": 32}, "32 of 16 devices"),
        ({"data_degree": 2, "tensor_degree": 3}, "tensor does not divide the attention heads"),
        ({"data_degree": 1, "pipeline_degree": 13}, "more pipeline stages than layers"),
        ({"data_degree": 3, "context_degree": 3}, "context does not divide the sequence"),
        ({"data_degree": 3}, "data degree does not divide the global batch"),
        ({"data_degree": 4, "pipeline_degree": 2, "zero_stage": 3}, "with a pipeline"),
        ({"zero_stage": 2}, "ZeRO-2 with several micro-batches"),
        ({"micro_batch": 3}, "micro-batch does not divide"),
        (
            {"data_degree": 2, "pipeline_degree": 6, "micro_batch": 2, "schedule": "interleaved"},
            "multiples of the stages",
        ),
        ({"precision": "nvfp4"}, "no nvfp4 matrix rate"),
        ({"expert_degree": 4}, "expert degree does not divide the experts"),
    ],
)
def test_an_illegal_plan_is_refused(changes: dict[str, Any], what: str) -> None:
    with pytest.raises(InputError, match=what) as caught:
        check_fleet_plan(problem(), replace(PLAN, **changes))
    assert caught.value.help


def test_key_value_heads_may_be_repeated_but_not_split() -> None:
    case = problem(dense_model(heads=12, kv_heads=4, hidden=1536, ffn=6144))
    check_fleet_plan(case, replace(PLAN, data_degree=1, tensor_degree=12))
    with pytest.raises(InputError, match="key/value heads"):
        check_fleet_plan(case, replace(PLAN, data_degree=1, tensor_degree=6))


def test_expert_degrees() -> None:
    case = problem(expert_model())
    check_fleet_plan(case, replace(PLAN, expert_degree=8))
    with pytest.raises(InputError, match="does not divide data x context x tensor"):
        check_fleet_plan(case, replace(PLAN, data_degree=2, expert_degree=8))


def test_rules_have_names_of_their_own() -> None:
    assert len({rule.name for rule in RULES}) == len(RULES)
