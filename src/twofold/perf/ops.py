"""The operator table as columns: shapes, FLOP and bytes of operators x keys.

A key is what an operator's cost depends on in a plan (here: the tokens of a micro-batch). All
arrays are [operators, keys] in float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from twofold.model import Operator, Size, flop_factor, weight_copies

Array = NDArray[np.float64]

ELEMENT_BYTES = {
    "fp32": 4,
    "tf32": 4,
    "bf16": 2,
    "fp16": 2,
    "fp8": 2,
    "mxfp8": 2,
    "nvfp4": 2,
}
"""Bytes of an activation: narrow formats are those of products, what is kept stays in bf16."""

VECTOR_PASSES: dict[str, tuple[int, int]] = {
    "add": (3, 1),
    "embedding": (2, 3),
    "layernorm": (2, 3),
    "rmsnorm": (2, 3),
    "head_rmsnorm": (2, 3),
    "batchnorm": (3, 5),
    "rotary": (2, 2),
    "gelu": (2, 3),
    "relu": (2, 3),
    "relu2": (2, 3),
    "swiglu": (3, 5),
    "geglu": (3, 5),
    "softcap": (2, 3),
    "routing": (2, 3),
    "permute": (2, 2),
    "pool": (1, 2),
    "cross_entropy": (2, 3),
}
"""Elements read and written for each element counted, forward and backward, at the least:
each operand read once, each result written once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorColumns:
    """`m n k batch` by operator and key; `repeat` and `flop_factor` by operator."""

    rows: tuple[Operator, ...]
    m: Array
    n: Array
    k: Array
    batch: Array
    repeat: Array
    flop_factor: Array


def column(size: Size, tokens: Array, seq: float) -> Array:
    """A size at each key's micro-batch `tokens`: [keys]."""
    values: Array = size.coefficient * tokens**size.tokens_power * seq**size.seq_power
    return values


def expand(rows: Sequence[Operator], tokens: Array, seq: float) -> OperatorColumns:
    """Evaluate the sizes of each row at each key's micro-batch `tokens` [keys]."""

    return OperatorColumns(
        rows=tuple(rows),
        m=np.array([column(row.m, tokens, seq) for row in rows]),
        n=np.array([column(row.n, tokens, seq) for row in rows]),
        k=np.array([column(row.k, tokens, seq) for row in rows]),
        batch=np.array([column(row.batch, tokens, seq) for row in rows]),
        repeat=np.array([row.repeat for row in rows], dtype=float),
        flop_factor=np.array([flop_factor(row, seq) for row in rows]),
    )


def forward_flop(columns: OperatorColumns) -> Array:
    """Model FLOP of one occurrence, forward, as `twofold.model` counts them."""
    flop: Array = columns.flop_factor[:, None] * columns.batch * columns.m * columns.n * columns.k
    return flop


def forward_bytes(columns: OperatorColumns, element_bytes: Array) -> Array:
    """Bytes that one occurrence moves at the least, forward. `element_bytes` [keys].

    gemm: both operands and the result once. Attention: q, k, v and the output once (a fused
    kernel). Vector operations: by `VECTOR_PASSES`.
    """
    return _elements(columns, forward=True) * element_bytes


def backward_bytes(columns: OperatorColumns, element_bytes: Array) -> Array:
    """As `forward_bytes`; a gemm runs two products, attention reads and writes twice as much."""
    return _elements(columns, forward=False) * element_bytes


def _elements(columns: OperatorColumns, *, forward: bool) -> Array:
    m, n, k, batch = columns.m, columns.n, columns.k, columns.batch
    elements = np.empty_like(m)
    for index, row in enumerate(columns.rows):
        if row.kind == "gemm":
            once = batch[index] * (m[index] * k[index] + k[index] * n[index] + m[index] * n[index])
            elements[index] = once if forward else 2 * once
        elif row.kind == "attention":
            once = 4 * batch[index] * m[index] * k[index]
            elements[index] = once if forward else 2 * once
        else:
            passes = VECTOR_PASSES[row.op][0 if forward else 1]
            elements[index] = passes * batch[index] * m[index] * n[index]
    return elements


def tensor_sizes(rows: Sequence[Operator]) -> list[tuple[int, int, bool]]:
    """(elements, how many, is a hidden matrix) of every trainable tensor.

    Hidden matrices are the weights of products inside the blocks: those that Muon trains.
    """
    sizes: list[tuple[int, int, bool]] = []
    for row in rows:
        if not row.tensors or not row.trainable:
            continue
        if row.kind == "gemm":
            weight = int(row.n.coefficient * row.k.coefficient)
            copies = row.repeat * weight_copies(row)
            sizes.append((weight, copies, row.segment == "block"))
            if row.tensors > weight_copies(row):
                biases = row.parameters // weight_copies(row) - weight
                sizes.append((biases, copies, False))
        else:
            sizes.append((row.parameters // row.tensors, row.repeat * row.tensors, False))
    return sizes


def hidden_matrices(rows: Sequence[Operator]) -> dict[tuple[int, int], int]:
    """(outputs, inputs) -> how many weights of that shape Muon orthogonalises together."""
    shapes: dict[tuple[int, int], int] = {}
    for row in rows:
        if row.kind == "gemm" and row.segment == "block" and row.trainable:
            shape = int(row.n.coefficient), int(row.k.coefficient)
            shapes[shape] = shapes.get(shape, 0) + row.repeat * weight_copies(row)
    return shapes
