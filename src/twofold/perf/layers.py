"""Layer keys priced: seconds of one micro-batch through all rows, by what binds it.

This is the table operators x keys of the design. A key is one choice of precision, attention
kernel, recompute, threads, micro-batch and compilation; plans that share it share its price.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from twofold.fleet import Curves
from twofold.model import Operator
from twofold.perf.efficiency import (
    attention_s,
    find_attention,
    find_gemm,
    find_op,
    op_backward_s,
    op_forward_s,
    product_s,
)
from twofold.perf.ops import OperatorColumns, expand
from twofold.plan import Attention, Plan, Precision, Recompute

Array = NDArray[np.float64]

COMPILED_VECTOR_FRACTION = 0.6
"""Vector time left after fusion by a compiler: assumed. Our own runs on a CPU gave 1.0-1.15x on
whole steps of small models, which is 0.5 to 1.0 here."""
COMPILED_OVERHEAD_FRACTION = 0.5

PARTS = ("gemm", "attention", "elementwise", "overhead")


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerKey:
    """What the price of a layer depends on."""

    precision: Precision
    attention: Attention
    threads: int
    recompute: Recompute
    micro_batch: int
    compile: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerPrices:
    """Seconds of one micro-batch, forward and backward, by part: each [keys].

    `row_s` is [operators, keys], all parts and repetitions together; `spread` the relative
    uncertainty of the curves used, weighted by time.
    """

    parts_s: dict[str, Array]
    row_s: Array
    spread: Array


def layer_key(plan: Plan) -> LayerKey:
    return LayerKey(
        precision=plan.precision,
        attention=plan.attention,
        threads=plan.threads,
        recompute=plan.recompute,
        micro_batch=plan.micro_batch,
        compile=plan.compile,
    )


def price_layers(
    rows: Sequence[Operator], curves: Curves, keys: Sequence[LayerKey], seq: int
) -> LayerPrices:
    """Price every key; InputError where a curve that a key needs was not measured."""
    parts_s = {part: np.zeros(len(keys)) for part in PARTS}
    row_s = np.zeros((len(rows), len(keys)))
    variance = np.zeros(len(keys))
    for group, members in _grouped(keys).items():
        columns = expand(rows, np.array([keys[i].micro_batch * seq for i in members]) * 1.0, seq)
        recomputed = np.array([keys[i].recompute == "full" for i in members])
        compiled = np.array([keys[i].compile for i in members])
        for index, row in enumerate(rows):
            price = _price_row(columns, index, curves, *group)
            forwards = 1.0 + (recomputed if row.segment == "block" else 0.0 * recomputed)
            for part, (forward_s, backward_s) in price.seconds.items():
                time_s = row.repeat * (forwards * forward_s + backward_s)
                time_s = np.where(compiled, _compiled_fraction(part), 1.0) * time_s
                parts_s[part][members] += time_s
                row_s[index, members] += time_s
                variance[members] += (price.spread * time_s) ** 2
    total_s = np.sum(list(parts_s.values()), axis=0)
    return LayerPrices(parts_s=parts_s, row_s=row_s, spread=np.sqrt(variance) / total_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class _RowPrice:
    """Forward and backward seconds of one occurrence by part."""

    seconds: dict[str, tuple[Array, Array]]
    spread: float


def _price_row(
    columns: OperatorColumns,
    index: int,
    curves: Curves,
    precision: str,
    attention: str,
    threads: int,
) -> _RowPrice:
    row = columns.rows[index]
    m, n, k = columns.m[index], columns.n[index], columns.k[index]
    batch = columns.batch[index]
    if row.kind == "gemm":
        return _price_gemm(row, curves, precision, threads, m, n, k, batch)
    if row.kind == "attention":
        kernel = find_attention(curves, attention, precision, threads)
        ones = np.ones_like(m)
        return _RowPrice(
            seconds={
                "attention": (
                    attention_s(kernel.forward, batch, n, k),
                    attention_s(kernel.backward, batch, n, k),
                ),
                "overhead": (kernel.forward[0] * ones, kernel.backward[0] * ones),
            },
            spread=kernel.spread,
        )
    return _price_vector(curves, row.op, precision, threads, batch * m * n)


def _price_gemm(
    row: Operator,
    curves: Curves,
    precision: str,
    threads: int,
    m: Array,
    n: Array,
    k: Array,
    batch: Array,
) -> _RowPrice:
    """Forward [m, k] x [k, n]; backward the gradients of the input [m, n] x [n, k] and of the
    weight [n, m] x [m, k]. A bias is one more vector operation over the result."""
    curve = find_gemm(curves, "linear", precision, threads)
    ones = np.ones_like(m)
    forward_s = product_s(curve, m, n, k, batch)
    backward_s = product_s(curve, m, k, n, batch) + product_s(curve, n, k, m, batch)
    overhead_s = curve.overhead_s * ones
    seconds = {"gemm": (forward_s, backward_s), "overhead": (overhead_s, 2 * overhead_s)}
    if row.op == "linear_bias":
        bias = _price_vector(curves, "bias", precision, threads, m * n)
        seconds["elementwise"] = bias.seconds["elementwise"]
        seconds["overhead"] = _plus(seconds["overhead"], bias.seconds["overhead"])
    return _RowPrice(seconds=seconds, spread=curve.spread)


def _price_vector(
    curves: Curves, op: str, precision: str, threads: int, elements: Array
) -> _RowPrice:
    """The cost of a call on (almost) nothing is overhead, the rest is element-wise work."""
    curve = find_op(curves, op, precision, threads)
    forward_s, backward_s = op_forward_s(curve, elements), op_backward_s(curve, elements)
    call_s = np.minimum(curve.forward_s[0], forward_s)
    backward_call_s = np.minimum(curve.backward_s[0] if curve.backward_s else 0.0, backward_s)
    return _RowPrice(
        seconds={
            "elementwise": (forward_s - call_s, backward_s - backward_call_s),
            "overhead": (call_s, backward_call_s),
        },
        spread=curve.spread,
    )


def _plus(a: tuple[Array, Array], b: tuple[Array, Array]) -> tuple[Array, Array]:
    return a[0] + b[0], a[1] + b[1]


def _compiled_fraction(part: str) -> float:
    return {
        "elementwise": COMPILED_VECTOR_FRACTION,
        "overhead": COMPILED_OVERHEAD_FRACTION,
    }.get(part, 1.0)


def _grouped(keys: Sequence[LayerKey]) -> dict[tuple[str, str, int], list[int]]:
    """Indices of keys that are priced on the same curves."""
    groups: dict[tuple[str, str, int], list[int]] = {}
    for index, key in enumerate(keys):
        groups.setdefault((key.precision, key.attention, key.threads), []).append(index)
    return groups
