"""Peak memory of training on one device, in parts that add up (bytes).

Symbols: P parameters, N tokens of a micro-batch. Weights, gradients and optimizer state are
kept in fp32; under bf16 autocast holds a bf16 copy of every product's weight through the step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from twofold.model import Operator, weight_copies
from twofold.perf.ops import ELEMENT_BYTES, column, tensor_sizes

Array = NDArray[np.float64]

_STATE_BYTES = 4


def parameter_bytes(num_parameters: int) -> float:
    """4 P: fp32 weights."""
    return float(_STATE_BYTES * num_parameters)


def optimizer_bytes(rows: Sequence[Operator], optimizer: str) -> float:
    """Two fp32 moments for AdamW (Kingma and Ba 2015); one momentum for a matrix under Muon."""
    total = 0.0
    for elements, count, hidden in tensor_sizes(rows):
        moments = 1 if optimizer == "muon" and hidden else 2
        total += _STATE_BYTES * moments * elements * count
    return total


def cast_bytes(rows: Sequence[Operator], precision: str) -> float:
    """2 bytes for every weight of a product, where autocast keeps a bf16 copy."""
    if precision != "bf16":
        return 0.0
    weights = sum(
        row.n.coefficient * row.k.coefficient * row.repeat * weight_copies(row)
        for row in rows
        if row.kind == "gemm"
    )
    return float(ELEMENT_BYTES["bf16"] * weights)


def saved_bytes(
    rows: Sequence[Operator],
    tokens: Array,
    seq: float,
    *,
    precision: str,
    level: str,
    attention: str,
) -> Array:
    """Activations kept for backward at its start, [keys]. `level` is the recompute level.

    Explicit attention also keeps the probabilities [batch, heads, seq, seq], in fp32 as the
    softmax leaves them, and in the compute precision for the product that follows.
    """
    width = ELEMENT_BYTES[precision]
    total = np.zeros_like(tokens)
    for row in rows:
        elements = row.saved_elements.get(level)
        fixed = row.saved_bytes.get(level)
        if elements is not None:
            total += row.repeat * width * column(elements, tokens, seq)
        if fixed is not None:
            total += row.repeat * column(fixed, tokens, seq)
        if row.kind == "attention" and attention == "explicit" and level == "none":
            total += row.repeat * score_bytes(row, tokens, seq, precision)
    return total


def score_bytes(row: Operator, tokens: Array, seq: float, precision: str) -> Array:
    """The probabilities that one explicit attention keeps, [keys]."""
    scores = (
        column(row.batch, tokens, seq) * column(row.m, tokens, seq) * column(row.n, tokens, seq)
    )
    width = 4.0 + 2.0 if precision == "bf16" else 4.0
    return width * scores


def working_bytes(
    rows: Sequence[Operator],
    tokens: Array,
    seq: float,
    *,
    precision: str,
    level: str,
    attention: str,
) -> Array:
    """The largest transient of any row beside what is kept, [keys].

    A row's own `working_elements`, or the scores of explicit attention and their gradient; under
    full recompute also everything that one block keeps while its backward runs.
    """
    width = ELEMENT_BYTES[precision]
    columns = [np.zeros_like(tokens)]
    for row in rows:
        columns.append(width * column(row.working_elements, tokens, seq))
        if row.kind == "attention" and attention == "explicit":
            columns.append(2 * score_bytes(row, tokens, seq, precision))
    largest: Array = np.max(columns, axis=0)
    if level == "full":
        blocks = [row for row in rows if row.segment == "block"]
        once = [replace(row, repeat=1) for row in blocks]
        largest = largest + saved_bytes(
            once, tokens, seq, precision=precision, level="none", attention=attention
        )
    return largest
