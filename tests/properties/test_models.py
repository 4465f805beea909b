"""What must hold for the operator table of every model, tried on random ones."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from twofold.document import canonical_json, from_mapping
from twofold.model import (
    Experts,
    LatentAttention,
    Model,
    Tower,
    active_parameters,
    describe_model,
    num_parameters,
    operator_table,
    training_flop_per_token,
)
from twofold.perf.ops import VECTOR_PASSES, tensor_sizes

PATIENT = settings(deadline=None)

LATENT = LatentAttention(query_rank=24, kv_rank=16, nope_dim=16, rope_dim=8, value_dim=12)
TOWER = Tower(
    name="vision", layers=3, hidden=24, heads=3, ffn=40, tokens=9, patch_elements=12, window=4,
    global_every=2, merge=3, projector_ffn=20, projector_norm="rmsnorm", class_token=True,
)  # fmt: skip


@st.composite
def models(draw: Any) -> Model:
    layers, count = draw(st.integers(1, 12)), draw(st.integers(1, 16))
    experts = Experts(
        count=count,
        top_k=draw(st.integers(1, count)),
        ffn=draw(st.integers(1, 64)),
        shared_ffn=draw(st.sampled_from([0, 48])),
        first_layer=draw(st.integers(0, layers - 1)),
        bias=draw(st.booleans()),
        router_bias=draw(st.booleans()),
    )
    latent = draw(st.sampled_from([None, LATENT]))
    window = draw(st.sampled_from([None, 1, 7, 64, 5000]))
    return Model(
        name="any",
        layers=layers,
        hidden=draw(st.sampled_from([24, 48, 96])),
        heads=6,
        kv_heads=draw(st.sampled_from([1, 2, 3, 6])),
        head_dim=draw(st.sampled_from([4, 8, 30])),
        ffn=draw(st.integers(1, 200)),
        vocab=draw(st.integers(1, 999)),
        max_seq_len=256,
        norm=draw(st.sampled_from(["layernorm", "rmsnorm"])),
        norm_place=draw(st.sampled_from(["before", "after", "around"])),
        activation=draw(st.sampled_from(["gelu", "relu", "relu2", "swiglu", "geglu"])),
        position=draw(st.sampled_from(["learned", "rotary", "alibi", "none"])),
        bias=draw(st.booleans()),
        qkv_bias=draw(st.sampled_from([None, True, False])),
        tied_embeddings=draw(st.booleans()),
        qk_norm=latent is None,
        qk_norm_weights=latent is None and draw(st.booleans()),
        causal=draw(st.booleans()),
        window=window,
        global_every=None if window is None else draw(st.sampled_from([None, 1, 2, 5])),
        attention_sinks=draw(st.booleans()),
        embedding_norm=draw(st.booleans()),
        token_types=draw(st.sampled_from([0, 2])),
        pooler=draw(st.booleans()),
        masked_head=draw(st.booleans()),
        experts=draw(st.sampled_from([None, experts])),
        latent=latent,
        towers=draw(st.sampled_from([(), (TOWER,)])),
    )


@PATIENT
@given(models(), st.integers(1, 4096))
def test_the_table_is_whole(model: Model, seq: int) -> None:
    rows = operator_table(model)
    total = num_parameters(model)
    assert total == sum(size * count for size, count, _ in tensor_sizes(rows))
    assert 0 < active_parameters(model) <= total
    assert training_flop_per_token(model, seq) > 0
    blocks = [row for row in rows if row.segment == "block"]
    assert max(row.first_layer + row.repeat - 1 for row in blocks) == model.layers
    attention = [row for row in blocks if row.kind == "attention"]
    assert sum(row.repeat for row in attention) == model.layers
    assert {row.op for row in rows if row.kind == "vector"} <= set(VECTOR_PASSES)
    for row in rows:
        for dimension in row.divided_by.values():
            assert dimension in ("m", "n", "k", "batch")


@PATIENT
@given(models(), st.integers(1, 256))
def test_a_window_is_never_more_work(model: Model, seq: int) -> None:
    free = replace(model, window=None, global_every=None)
    assert training_flop_per_token(model, seq) <= training_flop_per_token(free, seq) * (1 + 1e-12)


@PATIENT
@given(models())
def test_a_model_survives_json(model: Model) -> None:
    assert from_mapping(json.loads(canonical_json(model)), Model, at="test") == model
    json.dumps(describe_model(model), allow_nan=False)
