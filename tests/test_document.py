"""`plan.json`: complete, checked, executed exactly or refused."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fleets import plain_fleet
from twofold.document import (
    PlanDocument,
    from_mapping,
    make_document,
    plan_schema,
    read_plan,
    write_plan,
)
from twofold.errors import InputError
from twofold.model import Model
from twofold.plan import Plan, differing_levers
from twofold.workload import Recipe, Train

REFERENCE = Path(__file__).parents[1] / "docs" / "reference" / "plan.schema.json"


def document(**plan: Any) -> PlanDocument:
    return make_document(
        model=Model(
            name="m", layers=1, hidden=8, heads=2, kv_heads=1, ffn=16, vocab=256, max_seq_len=32
        ),
        workload=Train(
            text="stdlib", tokens=640, seq_len=32, recipe=Recipe(learning_rate=1e-3, global_batch=2)
        ),
        fleet=plain_fleet(),
        plan=Plan(**({"micro_batch": 2} | plan)),
        estimate=None,
        seed=3,
        twofold_version="test",
    )


@given(
    micro_batch=st.integers(1, 64),
    threads=st.integers(1, 128),
    precision=st.sampled_from(["fp32", "bf16", "tf32"]),
    attention=st.sampled_from(["sdpa", "explicit"]),
    recompute=st.sampled_from(["none", "full"]),
)
@settings(deadline=None)
def test_any_plan_survives_the_way_through_json(**levers: Any) -> None:
    original = document(**levers)
    decoded = json.loads(json.dumps(asdict(original)))
    assert from_mapping(decoded, PlanDocument, at="test") == original


def test_a_written_plan_is_read_back(tmp_path: Path) -> None:
    write_plan(document(), tmp_path / "plan.json")
    assert read_plan(tmp_path / "plan.json") == document()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d["plan"].update(micro_batch=1), "the plan is not the one that was hashed"),
        (lambda d: d["model"].update(hidden=16), "the model is not the one"),
        (lambda d: d["plan"].update(micro_bach=1), "no field 'plan.micro_bach'"),
        (lambda d: d["plan"].update(precision="fp12"), "plan.precision"),
        (lambda d: d["plan"].update(threads=0), "threads is 0"),
        (lambda d: d["model"].update(heads=3), "3 heads do not divide"),
        (lambda d: d["workload"].update(tokens=1), "less than one step"),
        (lambda d: d.update(schema_version=99), "schema version 99"),
        (lambda d: d.pop("seed"), "seed"),
    ],
)
def test_an_edited_plan_is_refused(tmp_path: Path, change: Any, said: str) -> None:
    path = tmp_path / "plan.json"
    write_plan(document(), path)
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(InputError) as caught:
        read_plan(path)
    assert said in str(caught.value)
    assert caught.value.help


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"a": NaN}'])
def test_what_is_no_plan_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(InputError):
        read_plan(tmp_path / "plan.json")


def test_the_schema_in_the_reference_is_current() -> None:
    assert json.loads(REFERENCE.read_text()) == plan_schema()


def test_differing_levers_are_named_with_their_effect() -> None:
    assert differing_levers(Plan(micro_batch=2), Plan(micro_batch=2, recompute="full")) == {
        "recompute": "exact"
    }
