import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twofold.evidence.quality import (
    at_parity,
    loss_per_log_token,
    margin_time_fraction,
    non_inferior,
)


def test_a_loss_within_the_margin_passes() -> None:
    quality = non_inferior([0.004, 0.006, 0.005, 0.005], 0.02)
    assert quality.passed
    assert quality.difference == pytest.approx(0.005)
    assert quality.upper == pytest.approx(0.005 + 2.353363 * 0.000816497 / 2, rel=1e-5)


def test_a_better_loss_is_no_inferiority_but_no_parity_either() -> None:
    better = [-0.10, -0.11, -0.09, -0.10]
    assert non_inferior(better, 0.02).passed
    assert not at_parity(better, 0.02).passed
    assert at_parity([0.001, -0.001, 0.002, 0.0], 0.02).passed


def test_noise_alone_does_not_pass() -> None:
    """The mean is within the margin, but the seeds say too little."""
    quality = non_inferior([0.2, -0.2, 0.15, -0.15], 0.02)
    assert quality.difference == pytest.approx(0.0)
    assert not quality.passed


def test_one_seed_proves_nothing() -> None:
    quality = non_inferior([-1.0], 0.02)
    assert quality.upper is None
    assert not quality.passed


def test_an_arm_worse_by_the_margin_is_let_through_in_5_of_100() -> None:
    rng = random.Random(1)
    passed = sum(
        non_inferior([0.02 + rng.gauss(0, 0.01) for _ in range(4)], 0.02).passed
        for _ in range(4000)
    )
    assert 0.035 <= passed / 4000 <= 0.065


@given(st.floats(-1.0, -0.05), st.floats(1.0, 6.0), st.floats(0.001, 0.05))
def test_margin_as_time_undoes_the_slope(slope: float, level: float, margin: float) -> None:
    """Training longer by that fraction lowers the loss by the margin."""
    points = [(tokens, level + slope * math.log(tokens)) for tokens in (1e5, 2e5, 4e5)]
    fraction = margin_time_fraction(points, margin)
    assert fraction is not None
    assert loss_per_log_token(points) == pytest.approx(slope)
    assert slope * math.log(1 + fraction) == pytest.approx(-margin)


def test_no_time_for_a_margin_where_the_loss_does_not_fall() -> None:
    assert margin_time_fraction([(1e5, 2.0), (2e5, 2.1)], 0.02) is None
    assert margin_time_fraction([(1e5, 2.0), (1e5, 1.9)], 0.02) is None
    assert margin_time_fraction([(1e5, 2.0), (2e5, 2.0 - 1e-9)], 1.0) is None
