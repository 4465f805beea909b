"""Measured curves on columns: seconds of products, attention and vector operations.

Each function takes plain numbers or numpy columns and evaluates one published or measured form.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from twofold.errors import InputError
from twofold.fleet import Accelerator, AttentionCurve, Curves, GemmCurve, OpCurve

Array = NDArray[np.float64]


def product_s(curve: GemmCurve, m: Array, n: Array, k: Array, batch: Array) -> Array:
    """Seconds of `batch` products [m, k] x [k, n] beyond the overhead of the call.

    T = 2 m n k batch / rate * (1 + m_half/m) (1 + n_half/n) (1 + k_half/k)
    """
    slowing = (1 + curve.m_half / m) * (1 + curve.n_half / n) * (1 + curve.k_half / k)
    return 2.0 * batch * m * n * k / curve.flop_per_s.value * slowing


def attention_s(
    coefficients: tuple[float, float, float, float], batch: Array, seq: Array, head_dim: Array
) -> Array:
    """Seconds of causal attention beyond the overhead of the call; `batch` counts heads too.

    T = batch seq (seq score_s + head_dim (seq product_s + element_s))
    """
    _, score_s, channel_s, element_s = coefficients
    return batch * seq * (seq * score_s + head_dim * (seq * channel_s + element_s))


def op_forward_s(curve: OpCurve, elements: Array) -> Array:
    """Seconds of one forward call over so many elements, overhead included."""
    return _interpolate(curve.sizes, curve.forward_s, elements)


def op_backward_s(curve: OpCurve, elements: Array) -> Array:
    """Seconds of one backward call, overhead included; zero for what has none."""
    if not curve.backward_s:
        return np.zeros_like(np.asarray(elements, dtype=float))
    return _interpolate(curve.sizes, curve.backward_s, elements)


def _interpolate(sizes: tuple[float, ...], times_s: tuple[float, ...], elements: Array) -> Array:
    """Linear between measured points; beyond the last in proportion; below the first constant.

    Linear, not log-log, between points: a call costs a + b x elements, whose chord lies below
    the log-log one and near the truth on either side of the knee.
    """
    elements = np.asarray(elements, dtype=float)
    inside = np.interp(elements, sizes, times_s)
    return np.where(elements > sizes[-1], times_s[-1] * elements / sizes[-1], inside)


def require_curves(accelerator: Accelerator) -> Curves:
    """The curves, or InputError that says how to get them."""
    if accelerator.curves is None:
        raise InputError(
            f"no measured curves for '{accelerator.name}'",
            at="fleet, curves",
            help="run `twofold calibrate` on that machine",
        )
    return accelerator.curves


def find_gemm(curves: Curves, op: str, precision: str, threads: int) -> GemmCurve:
    for curve in curves.gemm:
        if (curve.op, curve.precision, curve.threads) == (op, precision, threads):
            return curve
    known = sorted({(c.precision, c.threads) for c in curves.gemm if c.op == op})
    raise _missing(f"'{op}' products in {precision} with {threads} threads", known)


def find_attention(curves: Curves, kernel: str, precision: str, threads: int) -> AttentionCurve:
    for curve in curves.attention:
        if (curve.kernel, curve.precision, curve.threads) == (kernel, precision, threads):
            return curve
    known = sorted({(c.kernel, c.precision, c.threads) for c in curves.attention})
    raise _missing(f"{kernel} attention in {precision} with {threads} threads", known)


def find_op(curves: Curves, op: str, precision: str, threads: int) -> OpCurve:
    """The curve of that operation; one not measured in `precision` is priced as in fp32.

    Vector operations differ little between precisions beside products, and a precision that
    calibration abandoned as hopeless was not measured in full.
    """
    for wanted in (precision, "fp32"):
        for curve in curves.ops:
            if (curve.op, curve.precision, curve.threads) == (op, wanted, threads):
                return curve
    known = sorted({(c.op, c.precision, c.threads) for c in curves.ops if c.op == op})
    raise _missing(f"operation '{op}' with {threads} threads", known)


def measured_threads(curves: Curves) -> tuple[int, ...]:
    """The thread counts for which there is a curve of products."""
    return tuple(sorted({curve.threads for curve in curves.gemm if curve.op == "linear"}))


def _missing(what: str, known: Iterable[object]) -> InputError:
    listed = ", ".join(" ".join(map(str, item)) for item in known)  # type: ignore[call-overload]
    return InputError(
        f"there is no measured curve for {what}",
        at="fleet, curves",
        help=f"known: {listed}" if listed else "run `twofold calibrate`",
    )
