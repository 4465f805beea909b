"""The rows of self-attention: multi-head, grouped, latent, windowed.

Symbols: H hidden, N heads, D channels of a head.
"""

from __future__ import annotations

from twofold.model.architecture import LatentAttention, Model
from twofold.model.rows import (
    Place,
    attention,
    blocks,
    chosen,
    kept,
    linear,
    norm,
    tokens,
    vector,
)
from twofold.model.table import Operator, Size


def attention_rows(model: Model) -> list[Operator]:
    """From the residual stream back to it."""
    place = blocks(model)
    before = model.norm_place != "after"
    rows = []
    if before:
        rows.append(_residual_norm("attention_norm", model, place, entry=True))
    if model.latent is None:
        rows += _projected_rows(model, place, entry=not before)
        inner = model.heads * model.head_size
    else:
        rows += _latent_rows(model, model.latent, place, entry=not before)
        inner = model.heads * model.latent.value_dim
    bias = chosen(model.output_bias, model.bias)
    rows.append(linear("attention_output", inner, model.hidden, place, bias=bias, tensor="k"))
    if model.norm_place == "around":
        rows.append(_residual_norm("attention_post_norm", model, place))
    rows.append(vector("attention_residual", "add", model.hidden, place))
    if not before:
        rows.append(_residual_norm("attention_norm", model, place))
    return rows


def _residual_norm(name: str, model: Model, place: Place, *, entry: bool = False) -> Operator:
    return norm(name, model.norm, model.hidden, place, bias=model.bias, entry=entry)


def _projected_rows(model: Model, place: Place, *, entry: bool) -> list[Operator]:
    queries, keys = model.heads * model.head_size, model.kv_heads * model.head_size
    bias = chosen(model.qkv_bias, model.bias)
    return [
        linear(
            "query_key_value",
            model.hidden,
            queries + 2 * keys,
            place,
            bias=bias,
            tensor="n",
            entry=entry,
        ),
        *_head_rows(model, place, queries, keys),
        *_pair_rows(
            model,
            channels=model.head_size,
            saved=tokens(queries + 2 * keys),
            width=queries,
            keys_and_values=tokens(2 * keys),
        ),
    ]


def _head_rows(model: Model, place: Place, queries: int, keys: int) -> list[Operator]:
    """What happens to queries, keys and values before attention."""
    both = queries + keys
    rows: list[Operator] = []
    if model.value_embeddings:
        first = model.layers - model.value_embeddings + 1
        rows.append(
            vector(
                "value_embedding",
                "embedding",
                keys,
                Place("block", first, model.value_embeddings),
                split=True,
                parameters=model.vocab * keys,
                tensors=1,
                saved_elements=kept(tokens(keys)),
            )
        )
    if model.qk_norm:
        weights = 2 if model.qk_norm_weights else 0
        rows.append(
            vector(
                "query_key_norm",
                "head_rmsnorm",
                both,
                place,
                split=True,
                parameters=weights * model.head_size,
                tensors=weights,
                saved_bytes=kept(tokens(4 * (both + model.heads + model.kv_heads))),
            )
        )
    if model.position == "rotary":
        rows.append(vector("rotary", "rotary", both, place, split=True))
    return rows


def _latent_rows(
    model: Model, latent: LatentAttention, place: Place, *, entry: bool
) -> list[Operator]:
    """As trained, keys and values expanded (DeepSeek-V2, arXiv 2405.04434, equations 9 to 19).
    The narrow products down are whole on every tensor rank."""
    hidden, heads = model.hidden, model.heads
    bias = chosen(model.qkv_bias, model.bias)
    queries, values = heads * latent.query_dim, heads * latent.value_dim
    expanded = heads * (latent.nope_dim + latent.value_dim)
    rows = []
    if latent.query_rank is None:
        rows.append(linear("query", hidden, queries, place, bias=False, tensor="n", entry=entry))
    else:
        rank = latent.query_rank
        rows += [
            linear("query_down", hidden, rank, place, bias=bias, tensor=None, entry=entry),
            norm("query_norm", model.norm, rank, place, bias=model.bias),
            linear("query_up", rank, queries, place, bias=False, tensor="n"),
        ]
    rank = latent.kv_rank
    rows += [
        linear(
            "key_value_down",
            hidden,
            rank + latent.rope_dim,
            place,
            bias=bias,
            tensor=None,
            keeps=False,
        ),
        norm("key_value_norm", model.norm, rank, place, bias=model.bias),
        linear("key_value_up", rank, expanded, place, bias=False, tensor="n"),
    ]
    if latent.rope_dim:
        rows.append(vector("rotary", "rotary", (heads + 1) * latent.rope_dim, place, split=True))
    return rows + _pair_rows(
        model,
        channels=(latent.query_dim + latent.value_dim) / 2,
        saved=tokens(2 * queries + values),
        width=values,
        keys_and_values=tokens(queries + values),
    )


def _pair_rows(
    model: Model, *, channels: float, saved: Size, width: int, keys_and_values: Size
) -> list[Operator]:
    """Attention proper: one row for windowed layers, one for those that see everything."""
    windowed = model.windowed_layers
    kinds = [
        ("window_attention", model.window, Place("block", 1, windowed)),
        ("attention", None, Place("block", windowed + 1, model.layers - windowed)),
    ]
    return [
        attention(
            name,
            place,
            heads=model.heads,
            channels=channels,
            saved=saved,
            width=width,
            keys_and_values=keys_and_values,
            causal=model.causal,
            window=window,
            sinks=model.attention_sinks,
            biased=model.position == "alibi",
        )
        for name, window, place in kinds
        if place.repeat
    ]
