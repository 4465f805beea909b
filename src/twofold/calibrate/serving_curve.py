"""A `StepCurve` from the steps that a serving engine logged while it answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.optimize import nnls  # type: ignore[attr-defined]

from twofold.errors import InputError
from twofold.fleet import StepCurve

SHAPE = ("tokens", "sequences", "pairs", "keys")
_LEAST_STEPS = 24
_ROUNDS = 8
_OUTLYING = 4.0
"""A step that took so many times what was expected was disturbed from outside."""


def fit_step_curve(
    rows: Sequence[Mapping[str, float]],
    *,
    model_hash: str,
    precision: str,
    weight_precision: str,
    threads: int,
    answer_s: float = 0.0,
) -> StepCurve:
    """Mean time of a step by what it holds, no coefficient below zero. Rows: `SHAPE` and `time_s`.

    Weighted least squares whose weights are one over the fitted time, again and again: relative
    errors, but of the mean, since a long stretch sums steps. InputError where the rows are too few
    or too alike.
    """
    if len({tuple(row[name] for name in SHAPE) for row in rows}) < _LEAST_STEPS:
        raise InputError(
            f"{len(rows)} steps were measured, a curve needs {_LEAST_STEPS} different ones",
            at="steps of the server",
            help="measure again",
        )
    time_s = np.array([float(row["time_s"]) for row in rows])
    if not (np.isfinite(time_s) & (time_s > 0)).all():
        raise InputError(
            "a step took no time or none that is a number",
            at="steps of the server, time_s",
            help="measure again",
        )
    shapes = np.array([[1.0, *(float(row[name]) for name in SHAPE)] for row in rows])
    scale = np.maximum(shapes.max(axis=0), 1.0)
    shapes /= scale
    expected_s = time_s
    usual = np.ones(len(time_s), dtype=bool)
    for _ in range(_ROUNDS):
        weight = 1 / expected_s[usual]
        solution, _ = nnls(shapes[usual] * weight[:, None], time_s[usual] * weight)
        expected_s = np.maximum(shapes @ solution, 1e-9)
        usual = time_s < _OUTLYING * expected_s
    spread = float(np.sqrt(np.mean((time_s[usual] / expected_s[usual] - 1.0) ** 2)))
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
        answer_s=answer_s,
        spread=spread,
    )
