from __future__ import annotations

import numpy as np
import pytest

from tests.machines import calibrated_fleet, curves_of
from twofold.errors import InputError
from twofold.fleet import OpCurve
from twofold.perf.efficiency import (
    attention_s,
    find_attention,
    find_gemm,
    find_op,
    measured_threads,
    op_backward_s,
    op_forward_s,
    product_s,
)

CURVES = curves_of(calibrated_fleet())


def column(*values: float) -> np.ndarray:
    return np.array(values)


def test_a_large_product_runs_at_the_rate_and_a_narrow_one_slower() -> None:
    curve = find_gemm(CURVES, "linear", "fp32", 1)
    one = column(1.0)
    large = product_s(curve, column(1e6), column(1e6), column(1e6), one)[0]
    assert large == pytest.approx(2e18 / curve.flop_per_s.value, rel=1e-3)
    half = product_s(curve, column(curve.m_half), column(1e6), column(1e6), one)[0]
    flop = 2 * curve.m_half * 1e12
    assert half == pytest.approx(2 * flop / curve.flop_per_s.value, rel=1e-3)


def test_attention_is_quadratic_in_the_sequence_in_the_end() -> None:
    coefficients = find_attention(CURVES, "sdpa", "fp32", 1).forward
    short, long = attention_s(coefficients, column(8.0), column(8192.0, 16384.0), column(64.0))
    assert long / short == pytest.approx(4.0, rel=0.01)


def test_an_operation_is_interpolated_between_points_and_proportional_beyond() -> None:
    curve = OpCurve(op="x", precision="fp32", threads=1, sizes=(10.0, 110.0), forward_s=(2.0, 12.0))
    times = op_forward_s(curve, column(1.0, 10.0, 60.0, 110.0, 1100.0))
    assert times == pytest.approx([2.0, 2.0, 7.0, 12.0, 120.0])
    assert op_backward_s(curve, column(5.0, 500.0)) == pytest.approx([0.0, 0.0])


def test_what_was_not_measured_is_refused_with_what_was() -> None:
    with pytest.raises(InputError, match="fp8 with 1 threads") as caught:
        find_gemm(CURVES, "linear", "fp8", 1)
    assert "bf16 1" in (caught.value.help or "")
    with pytest.raises(InputError, match="explicit attention in fp32 with 7"):
        find_attention(CURVES, "explicit", "fp32", 7)
    with pytest.raises(InputError, match="operation 'convolution'"):
        find_op(CURVES, "convolution", "fp32", 1)


def test_an_operation_not_measured_in_a_precision_is_priced_as_in_fp32() -> None:
    assert find_op(CURVES, "gradient_clip", "bf16", 2).precision == "fp32"


def test_measured_threads_are_those_of_the_products() -> None:
    assert measured_threads(CURVES) == (1, 2)
