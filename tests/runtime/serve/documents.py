"""Serving plans for tests: a random model of bytes on this machine."""

from __future__ import annotations

from typing import Any

from tests.fleets import plain_fleet
from twofold.model import Model
from twofold.serving_document import ServingDocument, make_serving_document
from twofold.serving_plan import ServingPlan
from twofold.workload.serve import Arrivals, Lengths, Serve

BYTES = Model(
    name="bytes", layers=2, hidden=32, heads=2, kv_heads=1, ffn=64, vocab=256, max_seq_len=512,
    norm="rmsnorm", activation="swiglu", position="rotary", bias=False, tied_embeddings=False,
)  # fmt: skip


def serving_document(
    *, model: Model = BYTES, weights: str | None = "random", **plan: Any
) -> ServingDocument:
    fields = {
        "precision": "fp32", "max_num_seqs": 8, "max_batched_tokens": 128, "num_blocks": 512,
    } | plan  # fmt: skip
    return make_serving_document(
        model=model,
        workload=Serve(
            arrivals=Arrivals(rate_per_s=1.0), input=Lengths(mean=32), output=Lengths(mean=16)
        ),
        fleet=plain_fleet(),
        plan=ServingPlan(**fields),
        estimate=None,
        seed=3,
        twofold_version="test",
        weights=weights,
    )
