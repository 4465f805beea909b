"""A model described: what `twofold inspect` shows of it, as plain data."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from twofold.model.architecture import Model
from twofold.model.embedded import embedded_lack
from twofold.model.operators import (
    active_parameters,
    inference_flop_per_token,
    non_embedding_parameters,
    num_parameters,
    operator_table,
    training_flop_per_token,
)
from twofold.model.table import Operator, forward_flop

_KV_BYTES = 2
_NOT_SHAPE = ("name", "operators", "entry")


def describe_model(model: Model, seq_len: int | None = None) -> dict[str, Any]:
    """Counts, shape and rows of a model. FLOP at `seq_len`, at most 4,096 unless given.

    `kv_bytes_per_token` are 16-bit keys and values of all layers, as cached for inference; a
    windowed layer stops growing at its window.
    """
    seq_len = min(model.max_seq_len, 4096) if seq_len is None else seq_len
    rows = operator_table(model)
    lack = embedded_lack(model)
    return {
        "name": model.name,
        "parameters": num_parameters(model),
        "active_parameters": active_parameters(model),
        "non_embedding_parameters": non_embedding_parameters(model),
        "layers": model.layers,
        "expert_layers": model.expert_layers,
        "windowed_layers": model.windowed_layers,
        "seq_len": seq_len,
        "inference_flop_per_token": inference_flop_per_token(model, seq_len),
        "training_flop_per_token": training_flop_per_token(model, seq_len),
        "kv_bytes_per_token": None if model.operators else _kv_bytes_per_token(model),
        "shape": {} if model.operators else _shape(model),
        "rows": _row_summaries(rows, seq_len),
        "embedded_runtime": lack is None,
        "embedded_runtime_lack": lack,
    }


def _kv_bytes_per_token(model: Model) -> int:
    """2 (keys and values) x key/value heads x channels; the latent vector and the rotary key
    that all heads share under latent attention (arXiv 2405.04434, table 1)."""
    if model.latent is not None:
        channels = model.latent.kv_rank + model.latent.rope_dim
    else:
        channels = 2 * model.kv_heads * model.head_size
    return _KV_BYTES * model.layers * channels


def _shape(model: Model) -> dict[str, Any]:
    """The hyper-parameters that are not at rest, nested parts as their own mappings."""
    return {
        name: value
        for name, value in asdict(model).items()
        if name not in _NOT_SHAPE and value not in (None, False, 0, ())
    } | ({} if model.latent else {"head_dim": model.head_size})


def _row_summaries(rows: tuple[Operator, ...], seq_len: int) -> list[dict[str, Any]]:
    total = sum(forward_flop(row, seq_len, seq_len) * row.repeat for row in rows)
    return [
        {
            "name": row.name,
            "kind": row.kind,
            "segment": row.segment,
            "repeat": row.repeat,
            "parameters": row.parameters * row.repeat,
            "flop_fraction": forward_flop(row, seq_len, seq_len) * row.repeat / total
            if total
            else 0.0,
        }
        for row in rows
    ]
