"""Sequences cut over ranks give what whole sequences give."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")


from tests.runtime.ranks import MODEL, Trained, train_ranks
from tests.runtime.test_ranks import LOSS, NORM, WEIGHT

LEARNED = replace(
    MODEL, position="learned", kv_heads=2, value_embeddings=2, norm="layernorm", bias=True
)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, text: str) -> Trained:
    return train_ranks(tmp_path_factory.mktemp("alone"), text)


@pytest.mark.slow
@pytest.mark.parametrize("plan", [
    {"context_degree": 2},
    {"context_degree": 4, "attention": "explicit"},
    {"context_degree": 2, "data_degree": 2, "micro_batch": 3},
], ids=["context2", "context4", "context2-data2"])  # fmt: skip
def test_context_ranks_train_as_one_process(
    tmp_path: Path, text: str, alone: Trained, plan: dict[str, Any]
) -> None:
    ranks = train_ranks(tmp_path, text, plan=plan)
    losses, norms, weights = ranks.differs_from(alone)
    assert losses < LOSS
    assert norms < NORM
    assert weights < WEIGHT
