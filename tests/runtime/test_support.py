"""What cannot be run is refused by name."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("torch")

from tests.runtime.parity_cases import CASES, MIXTURE, MODERN, Case
from tests.runtime.parity_worker import document_of
from twofold.errors import InputError
from twofold.model import Model
from twofold.runtime.train.support import RULES, refuse_unsupported

OWN = replace(MODERN, name="own", entry="somewhere:network")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_parity_shows_is_not_refused(case: Case) -> None:
    refuse_unsupported(document_of(case))


@pytest.mark.parametrize(
    ("model", "plan", "lever", "named"),
    [
        (MODERN, {"tensor_degree": 4}, "tensor_degree", "2 key/value heads of 'modern'"),
        (replace(MODERN, ffn=65), {"tensor_degree": 2}, "tensor_degree", "65 channels"),
        (OWN, {"tensor_degree": 2}, "tensor_degree", "somewhere:network"),
        (OWN, {"data_degree": 2, "zero_stage": 3}, "zero_stage", "stage 3"),
        (
            MODERN,
            {"data_degree": 4, "zero_stage": 1, "shard_degree": 3},
            "shard_degree",
            "3 shards",
        ),
        (MODERN, {"data_degree": 2, "zero_stage": 1, "compile": True}, "compile", "sharded"),
        (MODERN, {"offload": "optimizer"}, "offload", "'optimizer'"),
        (MODERN, {"precision": "fp16"}, "precision", "fp16"),
        (MODERN, {"recompute": "selective"}, "recompute", "'selective'"),
    ],
)
def test_a_refusal_names_the_lever(
    model: Model, plan: dict[str, Any], lever: str, named: str
) -> None:
    with pytest.raises(InputError) as refused:
        refuse_unsupported(document_of(Case(name="x", model=model, plan=plan)))
    assert refused.value.at == f"plan, {lever}"
    assert named in refused.value.what
    assert refused.value.help


def test_sequences_that_cannot_be_split_evenly_are_refused() -> None:
    gpt2 = replace(MODERN, heads=3, kv_heads=3, hidden=48, ffn=96)
    plan = {"tensor_degree": 3, "sequence_parallel": True}
    with pytest.raises(InputError, match="32 positions cannot be split evenly over 3 ranks"):
        refuse_unsupported(document_of(Case(name="x", model=gpt2, plan=plan)))


def test_every_rule_fills_in_what_it_names() -> None:
    document = document_of(Case(name="x", model=MIXTURE))
    for rule in RULES:
        for text in (rule.what, rule.help):
            assert "{" not in text.format(plan=document.plan, model=document.model)
