"""What one micro-batch makes each device do: FLOP, bytes, calls and messages, before any speed.

The operator table x layer keys of the design, summed over operators. Volumes are exact
accounting; speeds enter afterwards, linearly (`rates`), so one table serves every device, fit
and uncertainty. All arrays are float64, [segments, phases, keys] or [segments, keys].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from twofold.model import Operator, attended_keys
from twofold.perf.ops import VECTOR_PASSES, column

Array = NDArray[np.float64]

SEGMENTS = ("input", "block", "output")
PHASES = ("forward", "backward", "recomputed", "reattended")
FORWARD, BACKWARD, RECOMPUTED, REATTENDED = range(4)
"""`recomputed` is the forward pass of a block run again where its layer is recomputed in full,
`reattended` that of attention alone where it is under selective recomputation."""
_SEGMENT_OF = {"tower": 0, "input": 0, "block": 1, "output": 2}

_LOGIT_BYTES = 4.0
_SCORE_PASSES = (6.0, 9.0)
"""Widths that an explicit attention streams per score, forward and backward, beside a byte of mask:
scores, softmax and dropout (operator list of Korthikanti et al. 2023, figure 3): 13 and 19 bytes in
16 bits."""
_SCORES_SAVED = 2.0
"""Softmax and dropout outputs, beside 1 byte of mask (Korthikanti et al. 2023, section 4.1)."""
_MASK_BYTES = 1.0
_FLASH_BACKWARD = 2.5
"""Five products backward for two forward, scores being recomputed (Dao 2023, section 3.1)."""
_ALIGNED_CHANNELS, _ODD_HEADS = 8.0, 8.0
"""Unfused products of heads whose channels are no multiple of 8 leave the matrix units (cuBLAS
needs 16-byte lines), which are about 8 times as fast in 16 bits as what is left."""
_EXPLICIT_CALLS = (5.0, 8.0)
_TILE = 64.0
"""Matrix units read operands in lines of 128 bytes: widths and depths that are no multiple of 64
elements run far below the rate (NVIDIA, "Matrix Multiplication Background", tile quantisation).
Vocabularies are padded by every framework."""
_QUANTISE_BYTES = 1.0
"""Casting an operand of a narrow product: 1 byte written; it is read where it was made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerKeys:
    """What the work of a layer depends on, a column each: [keys]. Flags are 0 or 1.

    `tokens` are those of a micro-batch before context parallelism divides them. `frozen`
    weights get no gradient of their own (LoRA). `width_bytes` are of an element of activations,
    messages and operands: 4 in fp32 and tf32, 2 in every mixed precision; logits take 4 in all.
    """

    tokens: Array
    tensor: Array
    context: Array
    expert: Array
    expert_tensor: Array
    sequence_parallel: Array
    explicit: Array
    selective: Array
    narrow: Array
    frozen: Array
    width_bytes: Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Per device and micro-batch, all layers of the model together, data ranks apart.

    `narrow_flop` are products that an 8- or 4-bit precision speeds up, `wide_flop` those that
    stay in 16 bits, and `expert_flop` those of either that experts take and
    `ragged_flop` those whose width or depth no tile divides; `wave_depth` FLOP for each result
    that a last, half empty wave of tiles could have held; `calls` are launches.
    Messages: `tensor_bytes` all-reduced over the tensor ranks in `tensor_calls`, `context_bytes`
    of keys and values received, `expert_bytes` sent to the experts and back. `saved_bytes`
    [segments, keys] wait for the backward pass (one micro-batch, the whole model's layers) where
    nothing is recomputed in full, and `inputs_bytes` of them where everything is;
    `boundary_bytes` [keys] go to the next pipeline stage.
    """

    narrow_flop: Array
    wide_flop: Array
    expert_flop: Array
    ragged_flop: Array
    wave_depth: Array
    attention_flop: Array
    gemm_bytes: Array
    stream_bytes: Array
    calls: Array
    tensor_bytes: Array
    tensor_calls: Array
    context_bytes: Array
    context_calls: Array
    expert_bytes: Array
    expert_calls: Array
    saved_bytes: Array
    inputs_bytes: Array
    boundary_bytes: Array


def layer_work(rows: Sequence[Operator], keys: LayerKeys, seq: float) -> Work:
    """Sum the rows of one model at every key."""
    size = len(keys.tokens)
    total = {
        field.name: np.zeros((3, 4, size))
        for field in fields(Work)
        if field.name not in ("saved_bytes", "inputs_bytes", "boundary_bytes")
    }
    saved, inputs = np.zeros((3, size)), np.zeros((3, size))
    boundary = np.zeros(size)
    for row in rows:
        segment = _SEGMENT_OF[row.segment]
        again = row.segment == "block"
        attends = keys.selective * keys.explicit if row.kind == "attention" else 0.0
        for name, (forward, backward) in _row_work(row, keys, seq).items():
            total[name][segment, FORWARD] += row.repeat * forward
            total[name][segment, BACKWARD] += row.repeat * backward
            total[name][segment, RECOMPUTED] += again * row.repeat * forward
            total[name][segment, REATTENDED] += attends * row.repeat * forward
        kept, kept_full = _row_memory(row, keys, seq)
        saved[segment] += row.repeat * kept
        inputs[segment] += row.repeat * kept_full
        if row.segment == "block":
            boundary = keys.width_bytes * column(row.boundary, keys.tokens / keys.context, seq)
    return Work(
        **total,
        saved_bytes=saved,
        inputs_bytes=inputs,
        boundary_bytes=boundary / np.where(keys.sequence_parallel > 0, keys.tensor, 1.0),
    )


def num_layers(rows: Sequence[Operator]) -> int:
    """Blocks of the chain."""
    return max((r.first_layer + r.repeat - 1 for r in rows if r.segment == "block"), default=1)


def join(works: Sequence[Work]) -> Work:
    """The keys of several tables, of several models even, one after the other."""
    return Work(
        **{
            field.name: np.concatenate([getattr(work, field.name) for work in works], axis=-1)
            for field in fields(Work)
        }
    )


def take(work: Work, index: NDArray[np.intp]) -> Work:
    """The work of each plan by the key it has: [.., plans]."""
    return Work(**{f.name: np.take(getattr(work, f.name), index, axis=-1) for f in fields(Work)})


_Pair = tuple[Array, Array]


def _row_work(row: Operator, keys: LayerKeys, seq: float) -> dict[str, _Pair]:
    """Forward and backward volumes of one occurrence."""
    if row.kind == "gemm":
        return _gemm_work(row, keys, seq)
    if row.kind == "attention":
        return _attention_work(row, keys, seq)
    return _vector_work(row, keys, seq)


def _gemm_work(row: Operator, keys: LayerKeys, seq: float) -> dict[str, _Pair]:
    """2 m n k FLOP; both operands and the result streamed once. Backward runs two products, one
    where the weight is frozen. Row-parallel results and column-parallel input gradients are
    all-reduced (Shoeybi et al. 2019, section 3), counted at the row-parallel one for both."""
    batch, m, n, k = gemm_shape(row, keys, seq)
    flop = 2.0 * batch * m * n * k
    ragged = np.asarray(((n % _TILE > 0) | (k % _TILE > 0)) & (row.segment == "block"), float)
    size = keys.width_bytes * batch * (m * k + k * n + m * n)
    products = 2.0 - (keys.frozen if row.segment != "output" else 0.0)
    narrow = keys.narrow if row.segment == "block" and row.op != "router" else 0.0 * keys.narrow
    work = {
        "ragged_flop": (ragged * flop, ragged * products * flop),
        "wave_depth": (2.0 * k, 2.0 * n + (products - 1.0) * 2.0 * m),
        "narrow_flop": (narrow * flop, narrow * products * flop),
        "wide_flop": ((1 - narrow) * flop, (1 - narrow) * products * flop),
        "gemm_bytes": (size, products * size),
        "stream_bytes": (
            _QUANTISE_BYTES * narrow * batch * (m * k + k * n),
            _QUANTISE_BYTES * narrow * products * batch * m * n,
        ),
        "calls": (np.ones_like(m), products * np.ones_like(m)),
    }
    split = row.divided_by.get("tensor")
    if split == "k" or (split == "n" and row.segment == "output"):
        message = keys.width_bytes * batch * m * (n if split == "k" else k)
        parallel = (keys.tensor > 1).astype(float)
        forward = parallel if split == "k" else 0.0 * parallel
        work["tensor_bytes"] = (forward * message, parallel * message)
        work["tensor_calls"] = (forward, parallel)
    if "expert" in row.divided_by:
        inner = row.divided_by.get("expert_tensor")
        message = keys.width_bytes * batch * m * (k if inner == "n" else n) * _sent_once(row, keys)
        spread = (keys.expert > 1).astype(float)
        work["expert_flop"] = (flop, products * flop)
        work["expert_bytes"] = (spread * message, spread * message)
        work["expert_calls"] = (spread, spread)
    return work


def _sent_once(row: Operator, keys: LayerKeys) -> Array:
    """A token goes once to each rank that has any of its k experts, of R ranks on average
    R (1 - (1 - 1/R)^k): its share of k messages."""
    top_k = max(row.m.coefficient * row.batch.coefficient, 1.0)
    ranks = keys.expert
    return np.asarray(np.minimum(ranks * (1.0 - (1.0 - 1.0 / ranks) ** top_k) / top_k, 1.0))


def _attention_work(row: Operator, keys: LayerKeys, seq: float) -> dict[str, _Pair]:
    """Flash attention computes attended pairs only and streams q, k, v and its output; where a
    position bias is added it skips none. Explicit attention computes all pairs and streams the
    scores again and again."""
    batch = column(row.batch, keys.tokens, seq) / keys.tensor
    queries = column(row.m, keys.tokens, seq) / keys.context
    depth = column(row.k, keys.tokens, seq)
    explicit = keys.explicit
    whole = row.op == "biased_attention"
    attended = np.where(explicit > 0, seq, seq if whole else attended_keys(row, seq))
    odd = explicit * (depth % _ALIGNED_CHANNELS > 0)
    flop = 4.0 * batch * queries * attended * depth * (1.0 + odd * (_ODD_HEADS - 1.0))
    scores = explicit * batch * queries * seq
    width = keys.width_bytes
    streamed = width * 4.0 * batch * queries * depth
    received = width * column(row.kv_elements, keys.tokens, seq) / keys.tensor
    received = received * (1.0 - 1.0 / keys.context)
    rings = keys.context - 1.0
    return {
        "attention_flop": (flop, np.where(explicit > 0, 2.0, _FLASH_BACKWARD) * flop),
        "stream_bytes": (
            streamed + (_SCORE_PASSES[0] * width + _MASK_BYTES) * scores,
            2.0 * streamed + (_SCORE_PASSES[1] * width + _MASK_BYTES) * scores,
        ),
        "calls": (
            1.0 + explicit * (_EXPLICIT_CALLS[0] - 1.0),
            2.0 + explicit * (_EXPLICIT_CALLS[1] - 2.0),
        ),
        "context_bytes": (received, 2.0 * received),
        "context_calls": (rings, 2.0 * rings),
    }


def _vector_work(row: Operator, keys: LayerKeys, seq: float) -> dict[str, _Pair]:
    elements = _vector_elements(row, keys, seq)
    width = _LOGIT_BYTES if row.op == "cross_entropy" else keys.width_bytes
    forward, backward = VECTOR_PASSES[row.op]
    one = np.ones_like(elements)
    work = {
        "stream_bytes": (forward * width * elements, backward * width * elements),
        "calls": (one, one),
    }
    if row.op == "embedding" and row.segment == "input":
        parallel = (keys.tensor > 1).astype(float)
        message = keys.width_bytes * column(row.boundary, keys.tokens / keys.context, seq)
        work["tensor_bytes"] = (parallel * message, 0.0 * message)
        work["tensor_calls"] = (parallel, 0.0 * parallel)
    return work


def gemm_shape(row: Operator, keys: LayerKeys, seq: float) -> tuple[Array, Array, Array, Array]:
    """batch, m, n, k of the product that one device runs.

    Each of the `expert` ranks holds batch / expert experts and gets the tokens of all of them;
    tokens enter the experts split over the tensor ranks.
    """
    tokens = keys.tokens / keys.context
    batch = column(row.batch, tokens, seq)
    m, n, k = (column(size, tokens, seq) for size in (row.m, row.n, row.k))
    axis, ranks = "tensor", keys.tensor
    if "expert" in row.divided_by:
        batch = batch / keys.expert
        m = m * keys.expert * keys.expert_tensor / keys.tensor
        axis, ranks = "expert_tensor", keys.expert_tensor
    split = row.divided_by.get(axis)  # type: ignore[call-overload]
    if split == "n":
        n = n / ranks
    elif split == "k":
        k = k / ranks
    return batch, m, n, k


def _vector_elements(row: Operator, keys: LayerKeys, seq: float) -> Array:
    """Elements that one device touches: inside a tensor-parallel region always divided, outside
    only under sequence parallelism (Korthikanti et al. 2023, section 4.2)."""
    tokens = keys.tokens / keys.context
    elements = column(row.batch, tokens, seq) * column(row.m, tokens, seq)
    elements = elements * column(row.n, tokens, seq)
    return elements / _activation_split(row, keys)


def _activation_split(row: Operator, keys: LayerKeys) -> Array:
    inner = {"tensor", "expert_tensor"} & set(row.divided_by)
    if row.kind == "gemm":
        inner = {axis for axis in inner if row.divided_by[axis] == "k"}  # type: ignore[index]
        if "expert" in row.divided_by:
            inner = {"expert"}
    if inner:
        return keys.tensor
    return np.where(keys.sequence_parallel > 0, keys.tensor, 1.0)


def _row_memory(row: Operator, keys: LayerKeys, seq: float) -> tuple[Array, Array]:
    """Bytes kept for backward by one occurrence: of an ordinary layer, and of one recomputed in
    full. A frozen weight does not need its input."""
    split = _activation_split(row, keys)
    none = _kept_bytes(row, "none", keys, seq) / split
    full = _kept_bytes(row, "full", keys, seq) / split
    if row.kind == "gemm":
        none, full = none * (1.0 - keys.frozen), full * (1.0 - keys.frozen)
    if row.kind == "attention":
        batch = column(row.batch, keys.tokens, seq) / keys.tensor
        scores = batch * column(row.m, keys.tokens, seq) / keys.context * seq * keys.explicit
        saved = _SCORES_SAVED * keys.width_bytes + _MASK_BYTES
        none = none + saved * scores * (1.0 - keys.selective)
    return none, full


def _kept_bytes(row: Operator, level: str, keys: LayerKeys, seq: float) -> Array:
    """Activations in their width, 32-bit logits. The table's 32-bit norms are autocast's; engines
    keep the residual stream in the width of activations."""
    tokens, width = keys.tokens / keys.context, keys.width_bytes
    elements, fixed = row.saved_elements.get(level), row.saved_bytes.get(level)
    total = np.zeros_like(tokens)
    if elements is not None:
        total = total + width * column(elements, tokens, seq)
    if fixed is not None:
        wide = row.op == "cross_entropy"
        narrow = width * column(row.m, tokens, seq) * column(row.n, tokens, seq)
        kept = column(fixed, tokens, seq) if wide else narrow
        total = total + (kept if fixed.coefficient > 0 else 0.0)
    return total
