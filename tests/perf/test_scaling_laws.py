from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twofold.perf.scaling_laws import (
    DENSE,
    DENSE_AS_PUBLISHED,
    Shape,
    decades_outside,
    expansion,
    joint_law,
    loss,
    tokens_at_equal_loss,
    tokens_to_loss,
)

parameters = st.floats(1e8, 1e10)
tokens = st.floats(5e9, 5e12)
experts = st.sampled_from([1.0, 4.0, 8.0, 32.0])


def test_chinchilla_is_optimal_at_its_own_compute() -> None:
    """70 billion parameters, 1.4 trillion tokens, 5.76e23 FLOP: the new fit agrees with the
    other two approaches, the published constants do not (arXiv 2404.10102)."""
    size, data = DENSE.optimal_shape(5.76e23)
    assert size == pytest.approx(70e9, rel=0.1)
    assert data / size == pytest.approx(20.0, rel=0.15)
    _, published = DENSE_AS_PUBLISHED.optimal_shape(5.76e23)
    assert published / DENSE_AS_PUBLISHED.optimal_shape(5.76e23)[0] > 50


def test_the_joint_laws_dense_optimum_is_the_papers() -> None:
    """1.7 billion parameters and 9.7 billion tokens at 1e20 FLOP (arXiv 2502.05172)."""
    size, data = joint_law(1.0).optimal_shape(1e20)
    assert size == pytest.approx(1.7e9, rel=0.03)
    assert data == pytest.approx(9.7e9, rel=0.03)


@pytest.mark.parametrize(
    ("flop", "gains"),
    [
        (1e20, (1.36, 1.68, 2.14, 2.79)),
        (1e22, (1.52, 1.96, 2.55, 3.32)),
        (1e24, (1.69, 2.28, 3.04, 3.95)),
    ],
)
def test_compute_to_the_optimal_dense_loss(flop, gains) -> None:
    target = joint_law(1.0).loss(*joint_law(1.0).optimal_shape(flop))
    needed = joint_law(np.array([4.0, 8.0, 16.0, 32.0])).least_flop(target)
    np.testing.assert_allclose(flop / needed, gains, rtol=5e-3)


@settings(deadline=None)
@given(parameters, st.floats(1e18, 1e26), experts)
def test_the_closed_optimum_is_one(other, flop, count) -> None:
    law = joint_law(count)
    best = law.loss(*law.optimal_shape(flop))
    assert best <= law.loss(other, flop / (6 * other)) * (1 + 1e-12)
    assert law.least_flop(best) == pytest.approx(flop, rel=1e-6)


@settings(deadline=None)
@given(parameters, tokens, experts)
def test_inversion_returns_the_tokens(size, data, count) -> None:
    reached = loss(size, data, count)
    assert tokens_to_loss(size, count, reached) == pytest.approx(data, rel=1e-6)
    assert DENSE.tokens_to_loss(size, DENSE.loss(size, data)) == pytest.approx(data, rel=1e-6)


@settings(deadline=None)
@given(parameters, tokens, experts)
def test_more_tokens_or_parameters_never_hurt(size, data, count) -> None:
    assert loss(size, 2 * data, count) < loss(size, data, count)
    assert loss(2 * size, data, count) < loss(size, data, count)


def test_a_loss_out_of_reach_takes_infinite_tokens() -> None:
    assert tokens_to_loss(1e8, 1.0, 2.0) == math.inf
    assert DENSE.least_flop(1.8) == math.inf


@settings(deadline=None)
@given(parameters, tokens, experts)
def test_equal_shapes_need_equal_tokens(size, data, count) -> None:
    shape = Shape(active_parameters=size, experts=count)
    assert tokens_at_equal_loss(shape, data, shape) == (data, data, data)


@settings(deadline=None)
@given(parameters, tokens, experts, parameters, experts)
def test_intervals_hold_their_value(size, data, count, other_size, other_count) -> None:
    reference = Shape(active_parameters=size, experts=count)
    candidate = Shape(active_parameters=other_size, experts=other_count)
    value, low, high = tokens_at_equal_loss(reference, data, candidate)
    assert 0.0 < low <= value <= high
    if math.isfinite(value):
        target = loss(size, data, count)
        assert loss(other_size, value, other_count) == pytest.approx(float(target), rel=1e-9)


def test_experts_save_tokens_at_equal_active_size_and_the_interval_says_how_surely() -> None:
    dense, sparse = Shape(active_parameters=1e9), Shape(active_parameters=1e9, experts=8.0)
    value, low, high = tokens_at_equal_loss(dense, 100e9, sparse)
    assert value < 100e9 / 1.5
    assert low < value < high < 100e9
    far = [Shape(active_parameters=4e10, experts=count) for count in (1.0, 8.0)]
    far_value, far_low, far_high = tokens_at_equal_loss(far[0], 5e12, far[1])
    assert far_high / far_low > 1.2
    assert math.isfinite(far_value)


def test_too_small_a_candidate_never_gets_there() -> None:
    large, small = Shape(active_parameters=1e10), Shape(active_parameters=1e8)
    value, low, high = tokens_at_equal_loss(large, 1e12, small)
    assert value == high == math.inf
    assert low > 1e12


def test_outside_the_fitted_range_is_counted_in_decades() -> None:
    assert decades_outside(Shape(active_parameters=1e9, experts=8.0), 1e11) == 0.0
    far = Shape(active_parameters=2.7e10, experts=32.0)
    assert decades_outside(far, 5e12) == pytest.approx(2.0)


def test_expansion_is_total_over_active_experts() -> None:
    assert expansion(8.0, 2.0) == 4.0
    assert expansion(256.0, 8.0, 1.0) == pytest.approx(257 / 9)
    assert expansion(0.0, 0.0) == 1.0
