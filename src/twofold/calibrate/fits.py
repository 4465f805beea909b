"""Measured rows into curves: few numbers each, fitted on relative error."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from twofold.calibrate.rows import Row
from twofold.figure import Figure
from twofold.fleet import AttentionCurve, GemmCurve, OpCurve

Array = NDArray[np.float64]

_FEW_SHAPES = 4
_PRIOR_HALF = 4.0
_PRIOR_WIDTH = 1.5
_PRIOR_WEIGHT = 0.05
_LEAST_HALF, _MOST_HALF = 0.01, 256.0
_MOST_ABOVE_BEST = 1.5
_HUBER_PASSES = 5
_HUBER = 2.0
_LEAST_SCATTER = 0.01
_NEWTON_SCHULZ_STEPS = 5


def fit_linear(rows: Sequence[Row], *, source: str, date: str) -> GemmCurve:
    """Fit the curve of matrix products to chains of linear layers, forward and training.

    A pair of layers inputs -> outputs -> inputs runs six products: two forward, two for the
    gradient of the input, two for that of the weight. Each row gives the forward and the
    training time, so that the sums of products are fitted as they were measured.
    """
    products: list[tuple[float, Array]] = []
    for row in rows:
        m, k, n = row["rows"], row["inputs"], row["outputs"]
        forward = [(m, n, k), (m, k, n)]
        backward = [(m, k, n), (m, n, k), (n, k, m), (k, n, m)]
        products.append((row["forward_s"], np.array(forward, dtype=float)))
        products.append((row["training_s"], np.array(forward + backward, dtype=float)))
    return _fit_products(
        "linear", products, rows[0]["precision"], rows[0]["threads"], source=source, date=date
    )


def fit_orthogonalise(rows: Sequence[Row], *, source: str, date: str) -> GemmCurve:
    """Fit the same curve to Newton-Schulz: three batched products in each of five steps."""
    products = []
    for row in rows:
        short, long = sorted((row["rows"], row["columns"]))
        step = [(short, short, long), (short, short, short), (short, long, short)]
        shapes = np.array(step * _NEWTON_SCHULZ_STEPS, dtype=float)
        products.append((row["time_s"], np.column_stack((shapes, np.full(15, row["count"])))))
    return _fit_products(
        "orthogonalise",
        products,
        rows[0]["precision"],
        rows[0]["threads"],
        source=source,
        date=date,
    )


def fit_attention(rows: Sequence[Row]) -> AttentionCurve:
    """Non-negative least squares on relative error; forward and backward apart.

    Backward is a difference of two times, so its errors are weighed against the longer of them.
    """
    terms = np.array([_attention_terms(row) for row in rows])
    forward_s = np.array([row["forward_s"] for row in rows])
    training_s = np.array([row["training_s"] for row in rows])
    forward, forward_error = _fit_relative(terms, forward_s, forward_s)
    backward, backward_error = _fit_relative(terms, training_s - forward_s, training_s)
    return AttentionCurve(
        kernel=rows[0]["kernel"],
        precision=rows[0]["precision"],
        threads=rows[0]["threads"],
        forward=forward,
        backward=backward,
        spread=max(forward_error, backward_error, _median_spread(rows)),
    )


def make_op_curve(rows: Sequence[Row]) -> OpCurve:
    """The measured points themselves, made to rise with size (noise apart, they do)."""
    ordered = sorted(rows, key=lambda row: float(row["elements"]))
    forward_s = np.array([row["forward_s"] for row in ordered])
    backward: tuple[float, ...] = ()
    if ordered[0].get("training_s") is not None:
        training_s = np.array([row["training_s"] for row in ordered])
        backward = _rising(np.maximum(training_s - forward_s, 0.0))
    return OpCurve(
        op=ordered[0]["op"],
        precision=ordered[0]["precision"],
        threads=ordered[0]["threads"],
        sizes=tuple(float(row["elements"]) for row in ordered),
        forward_s=_rising(forward_s),
        backward_s=backward,
        spread=_median_spread(rows),
    )


def _fit_products(
    op: str,
    products: Sequence[tuple[float, Array]],
    precision: str,
    threads: int,
    *,
    source: str,
    date: str,
) -> GemmCurve:
    """Least squares on log time over rate, overhead and the three half sizes (logs as well).

    The rate of an endless product is held between the best rate seen and half as much again.
    Weak priors keep what the shapes do not determine in a sane place; with very few shapes
    only rate and overhead are fitted.
    """
    from scipy.optimize import least_squares

    times_s = np.array([time_s for time_s, _ in products])
    flop = np.array([_flop(shapes).sum() for _, shapes in products])
    few = len(products) < 2 * _FEW_SHAPES and op == "linear"
    best = np.log(np.max(flop / times_s))
    start = np.array([best + 0.05, np.log(2e-6), *np.log([_PRIOR_HALF] * 3)])
    lower = np.array([best, np.log(1e-8), *np.log([_LEAST_HALF] * 3)])
    upper = np.array([best + np.log(_MOST_ABOVE_BEST), np.log(1e-2), *np.log([_MOST_HALF] * 3)])

    def predicted_s(logs: Array) -> Array:
        values = np.exp(logs)
        return np.array(
            [
                _products_s(shapes, values[0], values[1], np.zeros(3) if few else values[2:])
                for _, shapes in products
            ]
        )

    def residuals(logs: Array) -> Array:
        prior = _PRIOR_WEIGHT * (logs[1:] - start[1:]) / _PRIOR_WIDTH
        return np.concatenate((np.log(predicted_s(logs) / times_s), prior))

    fit = cast(Any, least_squares)  # its stub is read as a module
    solution = fit(residuals, start, bounds=(lower, upper), loss="soft_l1", f_scale=0.1)
    values = np.exp(solution.x)
    halves = (0.0, 0.0, 0.0) if few else tuple(float(value) for value in values[2:])
    spread = float(np.std(np.log(predicted_s(solution.x) / times_s)))
    rate = Figure(
        value=float(values[0]),
        unit="FLOP/s",
        basis="measured",
        source=source,
        date=date,
        spread=spread,
    )
    return GemmCurve(
        op=op,
        precision=precision,
        threads=threads,
        flop_per_s=rate,
        overhead_s=float(values[1]),
        m_half=halves[0],
        n_half=halves[1],
        k_half=halves[2],
        spread=spread,
    )


def _products_s(shapes: Array, rate: float, overhead_s: float, halves: Array) -> float:
    slowing = np.prod(1.0 + halves / shapes[:, :3], axis=1)
    return float((overhead_s + _flop(shapes) / rate * slowing).sum())


def _flop(shapes: Array) -> Array:
    """2 m n k, times the batch where there is a fourth column."""
    flop: Array = 2.0 * np.prod(shapes, axis=1)
    return flop


def _attention_terms(row: Row) -> tuple[float, float, float, float]:
    queries = row["batch"] * row["heads"] * row["seq"]
    channels = queries * row["head_dim"]
    return (1.0, queries * row["seq"], channels * row["seq"], channels)


def _fit_relative(
    terms: Array, times_s: Array, scale_s: Array
) -> tuple[tuple[float, float, float, float], float]:
    """Coefficients >= 0 of the terms, and the scatter about them, both relative to `scale_s`.

    Points that lie far off are weighed down in further passes (Huber's weights), since
    a disturbed point is off by a factor and not by its noise.
    """
    from scipy.optimize import nnls  # type: ignore[attr-defined]

    if len(times_s) < _FEW_SHAPES:
        product_s = max(0.0, float(np.median(times_s / terms[:, 2])))
        return (0.0, 0.0, product_s, 0.0), 0.5
    unit = terms.max(axis=0)
    weights = np.ones(len(times_s))
    for _ in range(_HUBER_PASSES):
        root = np.sqrt(weights) / scale_s
        solution, _ = nnls(terms / unit * root[:, None], times_s * root)
        off = np.abs(terms / unit @ solution - times_s) / scale_s
        middle = max(float(np.median(off)), _LEAST_SCATTER)
        weights = np.minimum(1.0, _HUBER * middle / np.maximum(off, 1e-12))
    a, b, c, d = (float(value) for value in solution / unit)
    return (a, b, c, d), float(1.48 * np.median(off))


def _rising(values: Array) -> tuple[float, ...]:
    return tuple(float(value) for value in np.maximum.accumulate(values))


def _median_spread(rows: Sequence[Row]) -> float:
    return float(np.median([row.get("spread", 0.0) for row in rows]))
