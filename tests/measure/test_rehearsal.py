"""Ten thousand ranks without ten thousand machines: the runtime's account is `perf`'s."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from tests.fleets import plain_fleet
from twofold.document import PlanDocument, make_document, write_plan
from twofold.errors import InputError
from twofold.measure.progress import Silent
from twofold.measure.rehearsal import account_of, kinds_of_ranks, rehearse_plan
from twofold.model import Model
from twofold.plan import Plan
from twofold.workload import Recipe, Train

WIDE = Model(
    name="wide", layers=16, hidden=8192, heads=64, kv_heads=8, ffn=28_672, vocab=128_256,
    max_seq_len=4096, norm="rmsnorm", activation="swiglu", position="rotary", bias=False,
    tied_embeddings=False,
)  # fmt: skip


def document(model: Model = WIDE, *, global_batch: int, **plan: Any) -> PlanDocument:
    recipe = Recipe(learning_rate=1e-4, global_batch=global_batch)
    return make_document(
        model=model,
        workload=Train(tokens=3 * global_batch * 4096, seq_len=4096, recipe=recipe),
        fleet=plain_fleet(),
        plan=Plan(micro_batch=1, threads=1, **plan),
        estimate=None,
        seed=0,
        twofold_version="test",
    )


def test_kinds_cover_every_rank_once() -> None:
    made = document(global_batch=1285, data_degree=160, tensor_degree=8, pipeline_degree=8)
    kinds = kinds_of_ranks(made)
    ranks = sorted(rank for of_kind in kinds.values() for rank in of_kind)
    assert ranks == list(range(10_240))
    assert {kind.share for kind in kinds} == {8, 9}
    assert len(kinds) == 6


@pytest.mark.verify
def test_ten_thousand_ranks_hold_and_send_what_perf_says(tmp_path: Path) -> None:
    made = document(global_batch=1280, data_degree=160, tensor_degree=8, pipeline_degree=8)
    write_plan(made, tmp_path / "plan.json")
    told = rehearse_plan(tmp_path / "plan.json", made, progress=Silent(), draws=32)
    assert told.num_ranks == 10_240
    assert len(told.kinds) == 3
    assert not told.unlike
    assert told.agrees, [(one.kind, one.largest_error) for one in told.kinds]
    middle = told.kinds[0]
    assert middle.sent_bytes["tensor"][0] == middle.sent_bytes["tensor"][1]


@pytest.mark.verify
@pytest.mark.parametrize(
    ("changes", "levers"),
    [
        ({}, {"tensor_degree": 2, "sequence_parallel": True, "data_degree": 2}),
        ({"activation": "gelu"}, {"pipeline_degree": 4, "virtual_stages": 2,
                                  "schedule": "interleaved"}),
    ],
)  # fmt: skip
def test_other_layouts(tmp_path: Path, changes: dict[str, Any], levers: dict[str, Any]) -> None:
    model = replace(WIDE, layers=8, hidden=1024, heads=16, kv_heads=4, ffn=4096, **changes)
    made = document(model, global_batch=16, **levers)
    write_plan(made, tmp_path / "plan.json")
    told = rehearse_plan(tmp_path / "plan.json", made, progress=Silent(), draws=2)
    assert told.agrees, [(one.kind, one.elements, one.sent_bytes) for one in told.kinds]


def test_a_wrong_account_is_found() -> None:
    made = document(global_batch=1280, data_degree=160, tensor_degree=8, pipeline_degree=8)
    other = document(global_batch=1280, data_degree=320, tensor_degree=4, pipeline_degree=8)
    kind = next(iter(kinds_of_ranks(made)))
    right, wrong = account_of(made, kind), account_of(other, kind)
    assert wrong[0] > 1.9 * right[0]
    assert wrong[1]["data"] > 1.9 * right[1]["data"]


def test_what_cannot_be_rehearsed_is_refused(tmp_path: Path) -> None:
    made = document(global_batch=1280, data_degree=1280, zero_stage=1)
    with pytest.raises(InputError, match="zero_stage 1 cannot be rehearsed"):
        rehearse_plan(tmp_path / "plan.json", made, progress=Silent())
