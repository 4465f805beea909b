"""A `StepCurve` from measured steps of the serving engine."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import nnls  # type: ignore[attr-defined]

from twofold.calibrate.rows import Row, merge_rounds
from twofold.errors import InputError
from twofold.fleet import StepCurve

SHAPE = ("tokens", "sequences", "pairs", "keys")
_LEAST_SHAPES = 6
"""One more than there are coefficients."""


def fit_step_curve(
    rows: Sequence[Row], *, model_hash: str, precision: str, weight_precision: str, threads: int
) -> StepCurve:
    """Least squares of the relative errors with no coefficient below zero, over the medians of
    equal steps. Rows hold `SHAPE` and `time_s`. InputError where they are too few or too alike.
    """
    merged = merge_rounds([{name: row[name] for name in (*SHAPE, "time_s")} for row in rows])
    if len(merged) < _LEAST_SHAPES:
        raise InputError(
            f"{len(merged)} kinds of steps were measured, a curve needs {_LEAST_SHAPES}",
            at="steps of the probe",
            help="measure again",
        )
    time_s = np.array([float(row["time_s"]) for row in merged])
    if not (np.isfinite(time_s) & (time_s > 0)).all():
        raise InputError(
            "a step took no time or none that is a number",
            at="steps of the probe, time_s",
            help="measure again",
        )
    shapes = np.array([[1.0, *(float(row[name]) for name in SHAPE)] for row in merged])
    scale = np.maximum(shapes.max(axis=0), 1.0)
    relative = shapes / scale / time_s[:, None]
    solution, _ = nnls(relative, np.ones(len(merged)))
    spread = float(np.sqrt(np.mean((relative @ solution - 1.0) ** 2)))
    step_s, token_s, sequence_s, pair_s, key_s = (float(x) for x in solution / scale)
    return StepCurve(
        model_hash=model_hash,
        precision=precision,
        weight_precision=weight_precision,
        threads=threads,
        step_s=step_s,
        token_s=token_s,
        sequence_s=sequence_s,
        pair_s=pair_s,
        key_s=key_s,
        spread=spread,
    )
