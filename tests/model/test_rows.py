"""Rows of experts, latent attention, windows and towers against counts done by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.model.test_architecture import EXPERTS, LATENT, TOWER
from tests.workloads import gpt2_model, modern_model
from twofold.model import (
    Experts,
    Model,
    Operator,
    active_parameters,
    attended_keys,
    forward_flop,
    inference_flop_per_token,
    non_embedding_parameters,
    num_parameters,
    operator_table,
    training_flop_per_token,
)
from twofold.perf import ops


def rows_of(model: Model) -> dict[str, Operator]:
    return {row.name: row for row in operator_table(model)}


def pairs(queries: int, window: int) -> int:
    """Attended pairs one by one, the diagonal left out: what the closed form says for large n."""
    return sum(min(query, window) for query in range(queries))


@pytest.mark.parametrize("seq", [1, 64, 100, 4096])
def test_causal_attention_sees_half_and_an_encoder_everything(seq: int) -> None:
    causal = rows_of(gpt2_model())["attention"]
    encoder = rows_of(gpt2_model(causal=False))["attention"]
    assert attended_keys(causal, seq) == seq / 2
    assert attended_keys(encoder, seq) == seq
    assert forward_flop(encoder, seq, seq) == 2 * forward_flop(causal, seq, seq)


@pytest.mark.parametrize("window", [1, 16, 100, 2048, 10_000])
def test_a_window_is_counted_pair_by_pair(window: int) -> None:
    seq = 2048
    row = rows_of(gpt2_model(window=window))["window_attention"]
    assert seq * attended_keys(row, seq) == pytest.approx(pairs(seq, window), abs=window)
    assert attended_keys(row, seq) <= min(window, seq)
    wide = rows_of(gpt2_model())["attention"]
    assert attended_keys(row, seq) <= attended_keys(wide, seq)


def test_windowed_and_global_layers_are_rows_of_their_own() -> None:
    rows = rows_of(gpt2_model(layers=7, window=32, global_every=3))
    assert (rows["window_attention"].repeat, rows["window_attention"].window) == (5, 32)
    assert (rows["attention"].repeat, rows["attention"].window) == (2, None)


@pytest.mark.parametrize(
    "model",
    [
        gpt2_model(),
        gpt2_model(window=32, global_every=2),
        gpt2_model(causal=False, experts=EXPERTS),
        modern_model(latent=LATENT, qk_norm=False, value_embeddings=0, towers=(TOWER,)),
    ],
    ids=["dense", "windows", "encoder", "latent"],
)
def test_columns_count_the_same_flop(model: Model) -> None:
    rows = operator_table(model)
    columns = ops.expand(rows, np.array([256.0, 1024.0]), 128)
    expected = [[forward_flop(row, tokens, 128) for tokens in (256, 1024)] for row in rows]
    np.testing.assert_allclose(ops.forward_flop(columns), expected, rtol=1e-12)


def test_flop_are_six_a_weight_and_attention() -> None:
    """6 N + 6 L S N_heads D, N being the weights of products that a token passes."""
    model = modern_model(
        activation="swiglu", experts=Experts(count=8, top_k=2, ffn=64, shared_ffn=32), layers=4,
        value_embeddings=0, head_dim=48,
    )  # fmt: skip
    hidden, inner, seq = model.hidden, model.heads * 48, 256
    attention = hidden * 3 * inner + inner * hidden
    experts = 3 * hidden * (2 * 64 + 32) + 8 * hidden
    weights = 4 * (attention + experts) + hidden * model.vocab
    expected = 6 * weights + 6 * 4 * seq * inner
    assert training_flop_per_token(model, seq) == pytest.approx(expected)


def test_experts_hold_all_weights_and_use_some() -> None:
    model = gpt2_model(experts=EXPERTS, bias=False)
    expert = 2 * model.hidden * 64
    rows = rows_of(model)
    assert rows["expert_up"].parameters == 8 * model.hidden * 64
    assert num_parameters(model) - active_parameters(model) == model.layers * 6 * expert
    assert forward_flop(rows["expert_up"], 512, 128) == 2 * 512 * 2 * model.hidden * 64
    assert rows["router"].op == "router"
    assert "tensor" not in rows["router"].divided_by


def test_dense_layers_before_experts_are_rows_of_their_own() -> None:
    rows = rows_of(gpt2_model(experts=Experts(count=8, top_k=2, ffn=64, first_layer=1)))
    assert (rows["mlp_up"].first_layer, rows["mlp_up"].repeat) == (1, 1)
    assert (rows["expert_up"].first_layer, rows["expert_up"].repeat) == (2, 3)
    assert rows["mlp_norm"].repeat == 4


def test_axes_divide_what_they_must() -> None:
    rows = rows_of(modern_model(activation="swiglu", experts=EXPERTS, layers=4))
    split = {name: row.divided_by.get("tensor") for name, row in rows.items()}
    assert split["query_key_value"] == "n"
    assert split["attention_output"] == "k"
    assert split["attention"] == "batch"
    for inside in ("rotary", "query_key_norm", "cross_entropy", "softcap", "head"):
        assert split[inside] == "n"
    for outside in ("attention_norm", "mlp_residual", "router", "dispatch", "expert_up"):
        assert split[outside] is None
    experts = {
        name: (row.divided_by["expert"], row.divided_by["expert_tensor"])
        for name, row in rows.items()
        if "expert" in row.divided_by
    }
    assert experts == {
        "expert_up": ("batch", "n"),
        "expert_activation": ("batch", "n"),
        "expert_down": ("batch", "k"),
    }


def test_latent_attention_mixes_key_and_value_channels() -> None:
    """DeepSeek-V2: both products of S^2/2 pairs, over 48 channels of key and 32 of value."""
    model = modern_model(latent=LATENT, qk_norm=False, value_embeddings=0)
    attention = rows_of(model)["attention"]
    assert forward_flop(attention, 128, 128) == 2 * model.heads * 128 * 64 * (48 + 32)
    assert rows_of(model)["key_value_down"].n.coefficient == 16 + 16


def test_a_tower_works_for_each_sequence() -> None:
    plain, seeing = gpt2_model(), gpt2_model(towers=(TOWER,))
    rows = [row for row in operator_table(seeing) if row.segment == "tower"]
    weights = sum(
        row.repeat * row.n.coefficient * row.k.coefficient for row in rows if row.kind == "gemm"
    )
    pairs = TOWER.layers * 4 * TOWER.tokens**2 * TOWER.hidden
    more = inference_flop_per_token(seeing, 64) - inference_flop_per_token(plain, 64)
    assert more * 64 == pytest.approx(2 * TOWER.tokens * weights + pairs)


def test_a_post_norm_block_keeps_its_entry_under_recompute() -> None:
    model = gpt2_model(norm_place="after")
    kept: float = sum(
        row.saved_elements["full"].at(512, 128)
        for row in operator_table(model)
        if row.segment == "block" and "full" in row.saved_elements
    )
    assert kept == 512 * model.hidden


@pytest.mark.parametrize(
    "fields", [{}, {"experts": EXPERTS}, {"norm_place": "after", "masked_head": True}]
)
def test_tensors_hold_all_parameters(fields: dict[str, Any]) -> None:
    model = gpt2_model(**fields)
    sizes = ops.tensor_sizes(operator_table(model))
    assert sum(size * count for size, count, _ in sizes) == num_parameters(model)


def test_without_embeddings() -> None:
    model = gpt2_model()
    tables = (model.vocab + model.max_seq_len) * model.hidden
    assert num_parameters(model) - non_embedding_parameters(model) == tables
