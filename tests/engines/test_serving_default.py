"""A plain plan for weights alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.fleets import plain_fleet
from tests.workloads import modern_model, train
from twofold.document import make_document, write_plan
from twofold.engines.serving_default import default_document
from twofold.errors import InputError
from twofold.plan import Plan


def test_a_trained_run_is_served_as_it_was_trained(tmp_path: Path) -> None:
    document = make_document(
        model=modern_model(), workload=train(), fleet=plain_fleet(), plan=Plan(micro_batch=4),
        estimate=None, seed=1, twofold_version="test",
    )  # fmt: skip
    write_plan(document, tmp_path / "plan.json")
    made = default_document(tmp_path)
    assert made.model == modern_model()
    assert (made.plan.pool, made.plan.precision) == ("local", "fp32")
    assert made.weights == str(tmp_path.resolve())


def test_a_models_folder_is_read_from_its_config(tmp_path: Path) -> None:
    config = {
        "model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2, "vocab_size": 300,
        "num_attention_heads": 4, "intermediate_size": 128, "max_position_embeddings": 128,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert default_document(tmp_path).model.hidden == 64


def test_another_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="neither"):
        default_document(tmp_path)
