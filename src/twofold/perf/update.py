"""What an optimizer step costs: clipping, the optimizer's kernels, Muon's iteration."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from twofold.fleet import Curves
from twofold.model import Operator
from twofold.perf.efficiency import find_gemm, find_op, op_forward_s, product_s
from twofold.perf.ops import hidden_matrices, tensor_sizes


def optimizer_s(
    rows: Sequence[Operator],
    curves: Curves,
    *,
    optimizer: str,
    kernel: str,
    orthogonal_precision: str,
    orthogonal_steps: int,
    threads: int,
) -> float:
    """Seconds of clipping and updating every tensor once.

    AdamW is priced by the size of each tensor with the kernel asked for; under Muon the hidden
    matrices pay momentum and orthogonalisation instead.
    """
    muon = optimizer == "muon"
    total_s = 0.0
    for elements, count, hidden in tensor_sizes(rows):
        update = "muon_update" if muon and hidden else f"adamw_{kernel}"
        for op in ("gradient_clip", update):
            total_s += count * _op_s(curves, op, threads, elements)
    if muon:
        total_s += orthogonal_steps * orthogonalise_step_s(
            rows, curves, precision=orthogonal_precision, threads=threads
        )
    return total_s


def orthogonalise_step_s(
    rows: Sequence[Operator], curves: Curves, *, precision: str, threads: int
) -> float:
    """One Newton-Schulz step on all hidden matrices, those of a shape together (Jordan 2024).

    With s <= l the sides, it runs [s, l] x [l, s], [s, s] x [s, s] and
    [s, s] x [s, l]: 2 (2 s^2 l + s^3) FLOP a matrix.
    """
    curve = find_gemm(curves, "orthogonalise", precision, threads)
    total_s = 0.0
    for shape, count in hidden_matrices(rows).items():
        short, long = sorted(shape)
        m = np.array([short, short, short], dtype=float)
        n = np.array([short, short, long], dtype=float)
        k = np.array([long, short, short], dtype=float)
        step_s = product_s(curve, m, n, k, np.full(3, float(count))).sum() + 3 * curve.overhead_s
        total_s += float(step_s)
    return total_s


def accumulate_s(rows: Sequence[Operator], curves: Curves, *, threads: int) -> float:
    """Adding one more micro-batch's gradients to those that are there."""
    return sum(
        count * _op_s(curves, "accumulate", threads, elements)
        for elements, count, _ in tensor_sizes(rows)
    )


def _op_s(curves: Curves, op: str, threads: int, elements: int) -> float:
    curve = find_op(curves, op, "fp32", threads)
    return float(op_forward_s(curve, np.array([float(elements)]))[0])
