from __future__ import annotations

import pytest

from tests.workloads import gpt2_model, modern_model
from twofold.errors import InputError
from twofold.model import (
    Model,
    Size,
    forward_flop,
    inference_flop_per_token,
    num_parameters,
    operator_table,
    training_flop_per_token,
)


def test_gpt2_small_has_its_published_parameters() -> None:
    """Radford et al. 2019 as released: 124,439,808 with the head tied to the embedding."""
    gpt2 = Model(
        name="gpt2", layers=12, hidden=768, heads=12, kv_heads=12, ffn=3072, vocab=50257,
        max_seq_len=1024,
    )  # fmt: skip
    assert num_parameters(gpt2) == 124_439_808


def test_llama_2_7b_has_its_published_parameters() -> None:
    """Touvron et al. 2023 as released: 6,738,415,616."""
    llama = Model(
        name="llama-2-7b", layers=32, hidden=4096, heads=32, kv_heads=32, ffn=11008, vocab=32000,
        max_seq_len=4096, norm="rmsnorm", activation="swiglu", position="rotary", bias=False,
        tied_embeddings=False,
    )  # fmt: skip
    assert num_parameters(llama) == 6_738_415_616


def test_grouped_heads_shrink_keys_and_values_only() -> None:
    full = modern_model(heads=4, kv_heads=4, value_embeddings=0)
    grouped = modern_model(heads=4, kv_heads=1, value_embeddings=0)
    saved = full.layers * full.hidden * 2 * 3 * full.head_size
    assert num_parameters(full) - num_parameters(grouped) == saved


def test_training_flop_is_six_per_weight_of_a_product_and_causal_attention() -> None:
    model = gpt2_model()
    seq = 128
    weights = model.layers * 12 * model.hidden**2 + model.hidden * model.vocab
    attention = 6 * model.layers * model.hidden * seq
    assert training_flop_per_token(model, seq) == pytest.approx(6 * weights + attention)


def test_inference_is_a_third_of_training() -> None:
    model = modern_model()
    assert 3 * inference_flop_per_token(model, 64) == pytest.approx(
        training_flop_per_token(model, 64)
    )


def test_vector_operations_are_no_model_flop() -> None:
    rows = operator_table(modern_model())
    assert sum(forward_flop(row, 512, 128) for row in rows if row.kind == "vector") == 0
    assert {row.kind for row in rows} == {"gemm", "attention", "vector"}


def test_rows_stand_in_order_and_layers_are_a_chain() -> None:
    model = modern_model(layers=6)
    rows = operator_table(model)
    assert [row.segment for row in rows] == sorted(
        (row.segment for row in rows), key=["input", "block", "output"].index
    )
    for row in rows:
        last = row.first_layer + row.repeat - 1
        assert {"input": (0, 0), "block": (1, 6), "output": (7, 7)}[row.segment][0] <= last
        assert last <= model.layers + 1
    value_embedding = next(row for row in rows if row.name == "value_embedding")
    assert (value_embedding.first_layer, value_embedding.repeat) == (5, 2)


def test_recompute_keeps_only_the_entries_of_blocks() -> None:
    model = gpt2_model()
    tokens = 512
    blocks = [row for row in operator_table(model) if row.segment == "block"]
    kept = {
        level: sum(
            row.repeat
            * (
                4 * row.saved_elements.get(level, Size(coefficient=0)).at(tokens, 128)
                + row.saved_bytes.get(level, Size(coefficient=0)).at(tokens, 128)
            )
            for row in blocks
        )
        for level in ("none", "full")
    }
    assert kept["full"] == model.layers * tokens * 4 * model.hidden
    assert kept["none"] > 10 * kept["full"]


def test_a_tied_head_owns_nothing_but_works() -> None:
    head = next(row for row in operator_table(gpt2_model()) if row.name == "head")
    assert head.parameters == head.tensors == 0
    assert forward_flop(head, 10, 10) == 2 * 10 * 128 * 256


def test_attention_grows_with_sequence_at_equal_tokens() -> None:
    attention = next(row for row in operator_table(gpt2_model()) if row.kind == "attention")
    assert forward_flop(attention, 1024, 512) == pytest.approx(
        4 * forward_flop(attention, 1024, 128)
    )


def test_a_users_network_is_refused() -> None:
    mine = gpt2_model(entry="mine:network")
    for question in (operator_table, num_parameters):
        with pytest.raises(InputError, match="not known"):
            question(mine)
    with pytest.raises(InputError, match="mine:network"):
        training_flop_per_token(mine, 128)
