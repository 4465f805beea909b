"""Step curves from logged steps: known coefficients come back, and stay non-negative."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from twofold.calibrate.serving_curve import fit_step_curve
from twofold.errors import InputError
from twofold.fleet import StepCurve

TRUE = {"step_s": 4e-3, "token_s": 2e-5, "sequence_s": 3e-5, "pair_s": 1e-9, "key_s": 5e-8}


def _rows(noise: float = 0.0, repeats: int = 3) -> list[dict[str, float]]:
    random = np.random.default_rng(0)
    decode = [
        (n, n, 0, n * keys) for n, keys in itertools.product((1, 2, 4, 8, 16), (64, 256, 512, 900))
    ]
    prefill = [(n, 1, n * n / 2, 0) for n in (32, 64, 128, 256, 512)]
    rows = []
    for tokens, sequences, pairs, keys in [*decode, *prefill]:
        time_s = (
            TRUE["step_s"]
            + TRUE["token_s"] * tokens
            + TRUE["sequence_s"] * sequences
            + TRUE["pair_s"] * pairs
            + TRUE["key_s"] * keys
        )
        for _ in range(repeats):
            rows.append(
                {
                    "tokens": tokens,
                    "sequences": sequences,
                    "pairs": pairs,
                    "keys": keys,
                    "time_s": time_s * float(np.exp(noise * random.standard_normal())),
                }
            )
    return rows


def _fit(rows: list[dict[str, float]]) -> StepCurve:
    return fit_step_curve(
        rows, model_hash="abc", precision="bf16", weight_precision="same", threads=1
    )


def test_known_coefficients_come_back() -> None:
    curve = _fit(_rows())
    for name, value in TRUE.items():
        assert getattr(curve, name) == pytest.approx(value, rel=1e-6)
    assert curve.spread < 1e-6
    assert (curve.model_hash, curve.threads) == ("abc", 1)


def test_spread_is_the_scatter_about_the_curve() -> None:
    assert 0.03 < _fit(_rows(noise=0.05)).spread < 0.07


def test_the_sum_of_noisy_steps_is_told_without_bias() -> None:
    rows = _rows(noise=0.4, repeats=200)
    curve = _fit(rows)
    told = sum(
        curve.step_s
        + curve.token_s * row["tokens"]
        + curve.sequence_s * row["sequences"]
        + curve.pair_s * row["pairs"]
        + curve.key_s * row["keys"]
        for row in rows
    )
    assert told == pytest.approx(sum(row["time_s"] for row in rows), rel=0.02)


def test_coefficients_are_never_negative() -> None:
    rows = [row | {"time_s": 5e-3 - 1e-6 * row["keys"] / 100} for row in _rows()]
    curve = _fit(rows)
    assert curve.key_s == 0.0
    assert min(curve.step_s, curve.token_s, curve.sequence_s, curve.pair_s) >= 0.0


def test_a_disturbed_step_does_not_move_it() -> None:
    rows = _rows()
    rows[0] = rows[0] | {"time_s": 1.0}
    assert _fit(rows).step_s == pytest.approx(TRUE["step_s"], rel=1e-6)


def test_too_few_different_steps_are_refused() -> None:
    with pytest.raises(InputError, match="a curve needs"):
        _fit(_rows()[:60])
