"""The envelope of a serving plan: what is written is what is read."""

import json
from pathlib import Path

import pytest

from tests.fleets import plain_fleet
from twofold.errors import InputError
from twofold.model import Model
from twofold.serving_document import (
    make_serving_document,
    read_serving_plan,
    serving_plan_schema,
    write_serving_plan,
)
from twofold.serving_plan import ServingPlan
from twofold.workload.serve import Arrivals, Lengths, Serve, Targets

REFERENCE = Path(__file__).parents[1] / "docs" / "reference" / "serve.schema.json"
MODEL = Model(
    name="tiny", layers=2, hidden=32, heads=2, kv_heads=2, ffn=64, vocab=256, max_seq_len=64
)


def written(path: Path) -> Path:
    document = make_serving_document(
        model=MODEL,
        workload=Serve(
            arrivals=Arrivals(rate_per_s=2),
            input=Lengths(mean=16),
            output=Lengths(mean=4, spread=0),
            targets=Targets(ttft_s=1),
        ),
        fleet=plain_fleet(),
        plan=ServingPlan(max_num_seqs=8),
        estimate=None,
        seed=1,
        twofold_version="test",
    )
    write_serving_plan(document, path)
    return path


def test_whole_numbers_read_back_with_the_hash_they_were_written_with(tmp_path: Path) -> None:
    document = read_serving_plan(written(tmp_path / "serve.json"))
    assert document.workload.input.mean == 16.0
    assert document.plan.max_num_seqs == 8


def test_an_edited_plan_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "serve.json")
    path.write_text(path.read_text().replace('"max_num_seqs": 8', '"max_num_seqs": 9'))
    with pytest.raises(InputError, match="the plan is not the one that was hashed"):
        read_serving_plan(path)


def test_the_published_schema_is_the_one_in_force() -> None:
    assert json.loads(REFERENCE.read_text()) == serving_plan_schema()
