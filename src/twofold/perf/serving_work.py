"""What one serving step makes each device do: FLOP, bytes and messages, before any speed.

Everything but the experts that are touched is linear in what a step holds, so that the operator
table is walked once and leaves coefficients. Forward volumes are `work.layer_work`'s; what
differs from training is here: weights are read once a step however few the tokens are, of
experts only those that a token takes, logits are made for the last token of a sequence alone,
and attention is counted by its query-key pairs and by the cached keys that it reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from twofold.errors import InputError
from twofold.model import Model, Operator, operator_table
from twofold.model.attention import attention_rows
from twofold.model.cache import cache_elements, cache_shards, decode_key_flop
from twofold.model.ends import input_rows, output_rows
from twofold.model.feedforward import feedforward_rows
from twofold.perf.ops import ELEMENT_BYTES
from twofold.perf.work import FORWARD, LayerKeys, layer_work
from twofold.plan import Precision
from twofold.serving_plan import KvPrecision, WeightPrecision

Array = NDArray[np.float64]
Column = Array | float

_NARROW: dict[str, float] = {"fp8": 1.0, "mxfp8": 1.0 + 1 / 32, "nvfp4": 0.5 + 1 / 16}
"""Bytes of a weight with its scales: one byte for 32 elements (MXFP8), for 16 (NVFP4)."""
_WEIGHT_BYTES: dict[WeightPrecision, float] = {
    "int8": 1.0,
    "fp8": 1.0,
    "int4": 0.5 + 2 / 128,
    "fp4": 0.5 + 1 / 16,
}
"""Weight-only: int8 a scale a row, int4 16 bits for 128 elements (GPTQ's usual group)."""
_KV_BYTES: dict[KvPrecision, float] = {"int8": 1.0, "fp8": 1.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How one replica is divided: degrees as in a `ServingPlan`, or columns of them."""

    tensor: int
    pipeline: int
    groups: int
    expert: int
    precision: Precision
    weight_precision: WeightPrecision
    kv_precision: KvPrecision


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingVolumes:
    """Per device, of all stages of a pipeline together, for one micro-batch; floats or columns.

    `group_` volumes belong to what each attention group does with its own tokens (attention, norms,
    routers), the others to what all devices divide among them. `_flop` are per token (narrow: in
    the plan's precision; wide: in 16 bits), of the head and the experts apart; `_weight_bytes` per
    step; `_stream_bytes` of activations per token, of the head per sequence. `pair_flop` per
    query-key pair of a prompt, `key_flop` and `key_bytes` per cached key, apart for layers
    with a window of `window` keys. A token takes `routed_fraction` of the experts.
    Messages: all-reduced bytes per token over `group_ranks` and `ranks`, all-to-all over
    `expert_ranks`, their numbers a step, and `boundary_bytes` per token to the next stage.
    """

    group_narrow_flop: Column
    group_wide_flop: Column
    narrow_flop: Column
    wide_flop: Column
    dense_weight_bytes: Column
    expert_narrow_flop: Column
    expert_wide_flop: Column
    expert_weight_bytes: Column
    routed_fraction: Column
    head_flop: Column
    head_weight_bytes: Column
    group_stream_bytes: Column
    stream_bytes: Column
    head_stream_bytes: Column
    pair_flop: Column
    window_pair_flop: Column
    key_flop: Column
    window_key_flop: Column
    key_bytes: Column
    window_key_bytes: Column
    window: Column
    calls: Column
    group_reduced_bytes: Column
    group_reduces: Column
    reduced_bytes: Column
    reduces: Column
    expert_bytes: Column
    expert_calls: Column
    boundary_bytes: Column
    group_ranks: Column
    ranks: Column
    expert_ranks: Column
    stages: Column
    groups: Column


def serving_volumes(model: Model, layout: Layout) -> ServingVolumes:
    """Walk the operator table once. InputError for what is not a transformer that decodes."""
    require_decoder(model)
    inner = feedforward_rows(model)
    experts = [row for row in inner if "expert" in row.divided_by]
    shared = [row for row in inner if "tensor" in row.divided_by]
    undivided = [row for row in inner if not {"tensor", "expert"} & set(row.divided_by)]
    group = [*attention_rows(model), *undivided]
    head = [row for row in output_rows(model) if row.op != "cross_entropy"]
    group_ranks = layout.tensor // layout.groups
    narrow = float(layout.precision in _NARROW)
    of_group = _linear(group, _keys(layout, group_ranks, narrow))
    of_all = _linear(shared, _keys(layout, layout.tensor, narrow))
    of_experts = _linear(experts, _keys(layout, layout.tensor, narrow))
    of_head = _linear(head, _keys(layout, layout.tensor, 0.0))
    of_input = _linear(input_rows(model), _keys(layout, layout.tensor, 0.0))
    width = float(ELEMENT_BYTES[layout.precision])
    weight = weight_bytes(layout) / width
    message = width * model.hidden
    apart = layout.groups > 1 and layout.expert > 1 and bool(experts)
    reduces = float(model.layers - (model.expert_layers if apart else 0))
    cache = kv_bytes(layout) * cache_elements(model) / cache_shards(model, group_ranks)
    key_flop = decode_key_flop(model) / group_ranks
    windowed = float(model.windowed_layers)
    whole = model.layers - windowed
    top_k, count = (model.experts.top_k, model.experts.count) if model.experts else (1, 1)
    return ServingVolumes(
        group_narrow_flop=of_group.slope["narrow_flop"],
        group_wide_flop=of_group.slope["wide_flop"],
        narrow_flop=of_all.slope["narrow_flop"],
        wide_flop=of_all.slope["wide_flop"],
        dense_weight_bytes=weight * (of_group.fixed["gemm_bytes"] + of_all.fixed["gemm_bytes"]),
        expert_narrow_flop=of_experts.slope["narrow_flop"],
        expert_wide_flop=of_experts.slope["wide_flop"],
        expert_weight_bytes=weight * of_experts.fixed["gemm_bytes"],
        routed_fraction=top_k / count,
        head_flop=of_head.slope["wide_flop"],
        head_weight_bytes=of_head.fixed["gemm_bytes"],
        group_stream_bytes=_streamed(of_group) + _streamed(of_input),
        stream_bytes=_streamed(of_all) + _streamed(of_experts),
        head_stream_bytes=_streamed(of_head),
        pair_flop=_pair_flop(group, windowed=False) / group_ranks,
        window_pair_flop=_pair_flop(group, windowed=True) / group_ranks,
        key_flop=whole * key_flop,
        window_key_flop=windowed * key_flop,
        key_bytes=whole * cache,
        window_key_bytes=windowed * cache,
        window=float(model.window or 0),
        calls=sum(part.fixed["calls"] for part in (of_group, of_all, of_experts, of_head)),
        group_reduced_bytes=(group_ranks > 1) * model.layers * message,
        group_reduces=float((group_ranks > 1) * model.layers),
        reduced_bytes=(layout.tensor > 1) * reduces * message,
        reduces=(layout.tensor > 1) * reduces,
        expert_bytes=apart * of_experts.slope["expert_bytes"],
        expert_calls=apart * of_experts.fixed["expert_calls"],
        boundary_bytes=(layout.pipeline - 1.0) * message,
        group_ranks=float(group_ranks),
        ranks=float(layout.tensor),
        expert_ranks=float(layout.expert),
        stages=float(layout.pipeline),
        groups=float(layout.groups),
    )


def stack_volumes(volumes: Sequence[ServingVolumes]) -> ServingVolumes:
    """Several replicas as columns."""
    return ServingVolumes(
        **{f.name: np.array([getattr(v, f.name) for v in volumes]) for f in fields(ServingVolumes)}
    )


def require_decoder(model: Model) -> None:
    """InputError for what does not generate tokens, or a user's own network."""
    if model.operators or not model.causal:
        raise InputError(
            f"'{model.name}' does not generate tokens one after the other",
            at=f"model '{model.name}'",
            help="serving needs a causal transformer",
        )
    operator_table(model)


def weight_bytes(layout: Layout) -> float:
    """Of one weight of the blocks as stored; embedding and head stay in the activations' width."""
    if layout.weight_precision != "same":
        return _WEIGHT_BYTES[layout.weight_precision]
    return _NARROW.get(layout.precision, float(ELEMENT_BYTES[layout.precision]))


def kv_bytes(layout: Layout) -> float:
    """Of one element of the cache."""
    return _KV_BYTES.get(layout.kv_precision, float(ELEMENT_BYTES[layout.precision]))


def touched_fraction(tokens: Column, routed_fraction: Column) -> Array:
    """Of the experts those that at least one of the tokens takes: 1 - (1 - k/E)^tokens, each token
    choosing at random."""
    return np.asarray(1.0 - (1.0 - routed_fraction) ** tokens)


@dataclass(frozen=True, slots=True)
class _Linear:
    """Volumes as fixed + slope x tokens."""

    fixed: dict[str, float]
    slope: dict[str, float]


def _linear(rows: Sequence[Operator], keys: LayerKeys) -> _Linear:
    """From the forward work at one and at two tokens."""
    work = layer_work(rows, keys, 1.0)
    fixed, slope = {}, {}
    for name in _USED:
        one, two = getattr(work, name)[:, FORWARD].sum(axis=0)
        slope[name] = float(two - one)
        fixed[name] = float(one - slope[name])
    return _Linear(fixed, slope)


_USED = (
    "narrow_flop", "wide_flop", "gemm_bytes", "stream_bytes", "calls", "expert_bytes",
    "expert_calls",
)  # fmt: skip


def _keys(layout: Layout, tensor: int, narrow: float) -> LayerKeys:
    one = np.ones(2)
    return LayerKeys(
        tokens=np.array([1.0, 2.0]),
        tensor=tensor * one,
        context=one,
        expert=layout.expert * one,
        expert_tensor=layout.tensor / layout.expert * one,
        sequence_parallel=0.0 * one,
        explicit=0.0 * one,
        selective=0.0 * one,
        narrow=narrow * one,
        frozen=0.0 * one,
        width_bytes=ELEMENT_BYTES[layout.precision] * one,
    )


def _streamed(part: _Linear) -> float:
    """Activations through memory per token: of vector operations, and of products in and out."""
    return part.slope["stream_bytes"] + part.slope["gemm_bytes"]


def _pair_flop(rows: Sequence[Operator], *, windowed: bool) -> float:
    """4 x heads x channels, of all layers with a window or of all without."""
    return sum(
        4.0 * row.repeat * row.batch.coefficient * row.k.coefficient
        for row in rows
        if row.kind == "attention" and (row.window is not None) == windowed
    )
