"""Sequences cut over ranks train as whole sequences do."""

from __future__ import annotations

from dataclasses import replace

import pytest

pytest.importorskip("torch")

from tests.runtime.layouts import Came, Case, train_alone, train_cases
from tests.runtime.ranks import MODEL

LEARNED = replace(
    MODEL, position="learned", kv_heads=2, value_embeddings=2, norm="layernorm", bias=True,
    qk_norm=False, activation="gelu", tied_embeddings=True,
)  # fmt: skip
CASES = {
    "context2": Case(model=MODEL, plan={"context_degree": 2}),
    "context2 learned": Case(model=LEARNED, plan={"context_degree": 2, "micro_batch": 4}),
    "context2 explicit": Case(
        model=MODEL, plan={"context_degree": 2, "attention": "explicit", "recompute": "full"}
    ),
    "planted": Case(model=MODEL, plan={"context_degree": 2}, plant="positions"),
    "context4": Case(model=MODEL, plan={"context_degree": 4, "micro_batch": 6}),
    "context2 data2": Case(
        model=MODEL, plan={"context_degree": 2, "data_degree": 2, "micro_batch": 3}
    ),
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Came]:
    return train_cases(tmp_path_factory.mktemp("ranks"), CASES)


@pytest.fixture(scope="module")
def alone() -> dict[str, Came]:
    ours, learned = (train_alone(Case(model=model, plan={})) for model in (MODEL, LEARNED))
    return {name: ours if case.model == MODEL else learned for name, case in CASES.items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in CASES if name != "planted"])
def test_context_ranks_train_as_one_process(
    trained: dict[str, Came], alone: dict[str, Came], name: str
) -> None:
    print(name, *[f"{value:.1e}" for value in trained[name].differs_from(alone[name])])
    assert trained[name].is_like(alone[name])


@pytest.mark.slow
def test_positions_that_start_anew_on_every_rank_are_found(
    trained: dict[str, Came], alone: dict[str, Came]
) -> None:
    assert not trained["planted"].is_like(alone["planted"])
