"""The matrix is the answer of the rules that refuse, and every refusal names its lever."""

from __future__ import annotations

from dataclasses import fields
from functools import cache
from typing import Any

import pytest

from tests.engines.export.cases import GPT2, LLAMA, case
from twofold.engines.export.matrix import SERVING_TRIALS, TRIALS, cases, support_matrix, tried
from twofold.engines.export.registry import ENGINES, find_engine
from twofold.errors import InputError
from twofold.plan import Plan, Stage
from twofold.report.engines_text import engines_text
from twofold.serving_plan import ServingPlan

_OF_OTHERS = {"orthogonal_precision", "exchange_precision", "exchange_fragments"}
"""They do nothing without Muon and without local steps, which are levers of their own."""


_matrix = cache(support_matrix)


def test_every_lever_is_tried() -> None:
    assert set(TRIALS) | _OF_OTHERS == {field.name for field in fields(Plan)}
    serving = {field.name for field in fields(ServingPlan)} - {"pool", "threads", "compile"}
    assert set(SERVING_TRIALS) == serving


def test_cells_say_what_the_rules_say() -> None:
    matrix = support_matrix()
    assert matrix["megatron"]["schedule"] == ("1f1b", "interleaved")
    assert matrix["torchtitan"]["zero_stage"] == ("0", "2", "3")
    assert matrix["deepspeed"]["zero_stage"] == ("0", "1", "2", "3")
    assert matrix["accelerate"]["tensor_degree"] == ()
    assert matrix["accelerate"]["pool"] == matrix["deepspeed"]["pool"] == ("gpu", "cpu")
    assert matrix["maxtext"]["pool"] == ("gpu", "tpu")
    for levers in matrix.values():
        assert levers["local_steps"] == levers["shares"] == levers["rebalance_steps"] == ()
        assert levers["data_degree"] == ("> 1",)


@pytest.mark.parametrize("lever", TRIALS)
@pytest.mark.parametrize("name", ENGINES)
def test_a_value_outside_the_matrix_is_refused_by_name(name: str, lever: str) -> None:
    """Whatever no export of an engine takes is refused for a reason that names a lever."""
    engine, expressed = ENGINES[name], _matrix()[name][lever]
    for trial in TRIALS[lever]:
        refusals = [engine.refusal(one) for one in cases(trial)]
        if trial.label in expressed:
            continue
        assert all(refusals)
        named = {str(r.at) for r in refusals if r is not None}
        needed = {f"plan, {word}" for word in (lever, *trial.levers)}
        assert named & needed, f"{trial.label}: {named}"
        assert all(r.help for r in refusals if r is not None)


def test_the_text_has_a_row_for_every_lever() -> None:
    lines = engines_text().splitlines()
    for lever in TRIALS:
        assert any(line.startswith(lever) for line in lines)
    assert tried(TRIALS["shard_degree"]) == ("< data",)


@pytest.mark.parametrize(
    ("engine", "plan", "at", "nearest"),
    [
        ("accelerate", {"tensor_degree": 2}, "plan, tensor_degree", "tensor_degree 1"),
        ("accelerate", {"zero_stage": 1, "data_degree": 2}, "plan, zero_stage", "stage 2 or 3"),
        ("deepspeed", {"offload": "optimizer"}, "plan, offload", "stage 1, 2 or 3"),
        ("megatron", {"compile": True}, "plan, compile", "compile off"),
        ("megatron", {"schedule": "zb-h1", "pipeline_degree": 2}, "plan, schedule", "'1f1b'"),
        ("megatron", {"precision": "tf32"}, "plan, precision", "bf16"),
        ("torchtitan", {"attention": "explicit"}, "model", "llama-3.1-8b"),
        ("maxtext", {"pipeline_degree": 2}, "plan, pipeline_degree", "megatron"),
        ("deepspeed", {"micro_batch": 3}, "plan, micro_batch", "divides"),
        ("megatron", {"local_steps": 8, "data_degree": 2}, "plan, local_steps", "local_steps 0"),
    ],
)
def test_refusals_name_the_lever_and_the_nearest(
    engine: str, plan: dict[str, Any], at: str, nearest: str
) -> None:
    base: dict[str, Any] = {"micro_batch": 1, "optimizer_kernel": "fused", "precision": "bf16"}
    refusal = ENGINES[engine].refusal(case(Plan(**base | plan), LLAMA))
    assert refusal is not None
    assert refusal.at == at
    assert nearest in str(refusal.help)


def test_stages_on_unlike_pools_are_refused() -> None:
    stages = (Stage(pool="a", layers=2), Stage(pool="b", layers=2))
    plan = Plan(micro_batch=1, pipeline_degree=2, stages=stages, optimizer_kernel="fused")
    refusal = ENGINES["megatron"].refusal(case(plan, GPT2))
    assert refusal is not None
    assert "unlike pools" in refusal.what


def test_an_unknown_engine_is_refused_with_the_nearest() -> None:
    with pytest.raises(InputError, match="megatron-lm") as refused:
        find_engine("megatron-lm", at="--to")
    assert refused.value.help == "perhaps 'megatron' is meant"
