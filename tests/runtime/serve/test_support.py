"""What cannot be honoured is refused by name."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("torch")

from tests.runtime.serve.documents import BYTES, serving_document
from twofold.errors import InputError
from twofold.model import Experts, LatentAttention
from twofold.runtime.serve.rotary import rotary_of
from twofold.runtime.serve.support import refuse_unsupported
from twofold.serving_plan import PrefillPlan


@pytest.mark.parametrize(
    ("lever", "value"),
    [
        ("replicas", 2),
        ("tensor_degree", 2),
        ("pipeline_degree", 2),
        ("expert_degree", 2),
        ("precision", "fp8"),
        ("weight_precision", "int4"),
        ("kv_precision", "int8"),
        ("prefill", PrefillPlan(pool="h100")),
        ("compile", True),
    ],
)
def test_a_lever_is_refused(lever: str, value: Any) -> None:
    with pytest.raises(InputError) as told:
        refuse_unsupported(serving_document(**{lever: value}))
    assert told.value.at == f"plan, {lever}"
    assert told.value.help


def test_int8_experts_are_refused() -> None:
    model = replace(BYTES, experts=Experts(count=4, top_k=2, ffn=32))
    refuse_unsupported(serving_document(model=model))
    with pytest.raises(InputError, match="experts of 'bytes' in int8"):
        refuse_unsupported(serving_document(model=model, weight_precision="int8"))


@pytest.mark.parametrize(
    "changes",
    [
        {"norm_place": "after"},
        {"activation": "geglu"},
        {"position": "alibi"},
        {"attention_sinks": True},
        {"causal": False},
        {"latent": LatentAttention(kv_rank=8, nope_dim=8, rope_dim=4, value_dim=8)},
    ],
)
def test_a_model_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="cannot build this model"):
        refuse_unsupported(serving_document(model=replace(BYTES, **changes)))


def test_weights_are_needed() -> None:
    with pytest.raises(InputError, match="names no weights"):
        refuse_unsupported(serving_document(weights=None))


def test_an_unknown_rotary_scaling_is_refused() -> None:
    assert rotary_of({"rope_theta": 5e5}, at="config").base == 5e5
    assert rotary_of({"rope_parameters": {"rope_theta": 1e6}}, at="config").base == 1e6
    with pytest.raises(InputError, match="yarn"):
        rotary_of({"rope_scaling": {"type": "yarn", "factor": 4}}, at="config")
