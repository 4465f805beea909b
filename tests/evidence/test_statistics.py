import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twofold.errors import InputError
from twofold.evidence.statistics import (
    half_width_of,
    mean_interval,
    paired_ratio,
    pairs_needed,
    spreads_too_widely,
    t_quantile,
    upper_bound,
)

ratios = st.floats(0.01, 100.0)


def test_t_quantiles_are_those_of_the_tables() -> None:
    assert t_quantile(0.975, 3) == pytest.approx(3.182446, abs=1e-6)
    assert t_quantile(0.95, 4) == pytest.approx(2.131847, abs=1e-6)


def test_known_interval() -> None:
    """ln 2 ± 3.182 · 0.1 / √4 for logs at ln 2 ∓ and ± 0.1 · √3/2 (whose s is 0.1)."""
    d = 0.1 * math.sqrt(3) / 2
    logs = [math.log(2) + sign * d for sign in (-1, -1, 1, 1)]
    ratio = paired_ratio([(block, math.exp(log)) for block, log in enumerate(logs)])
    assert ratio.value == pytest.approx(2.0)
    assert ratio.spread == pytest.approx(0.1)
    assert ratio.low == pytest.approx(2.0 * math.exp(-3.182446 * 0.05), rel=1e-6)
    assert ratio.high == pytest.approx(2.0 * math.exp(3.182446 * 0.05), rel=1e-6)


def test_one_pair_has_no_interval_and_no_spread() -> None:
    ratio = paired_ratio([(0, 1.7)])
    assert ratio.value == pytest.approx(1.7)
    assert (ratio.low, ratio.high, ratio.spread) == (None, None, None)
    assert not spreads_too_widely(ratio)


@pytest.mark.parametrize("bad", [0.0, -1.0, math.inf, math.nan])
def test_a_ratio_that_is_no_positive_number_is_refused(bad: float) -> None:
    with pytest.raises(InputError, match="block 1"):
        paired_ratio([(0, 1.0), (1, bad)])


@pytest.mark.parametrize("n", [4, 5, 8])
def test_the_interval_covers_the_truth_in_95_of_100(n: int) -> None:
    """True ratio 2, 3 % noise on either side: 93-97 % of 4000 intervals hold it."""
    rng = random.Random(n)
    repeats, covered = 4000, 0
    for _ in range(repeats):
        pairs = [(i, 2.0 * math.exp(rng.gauss(0, 0.03) - rng.gauss(0, 0.03))) for i in range(n)]
        ratio = paired_ratio(pairs)
        assert ratio.low is not None
        assert ratio.high is not None
        covered += ratio.low <= 2.0 <= ratio.high
    assert 0.93 <= covered / repeats <= 0.97


@given(st.lists(ratios, min_size=2, max_size=12))
def test_swapping_the_arms_inverts_ratio_and_interval(values: list[float]) -> None:
    there = paired_ratio(list(enumerate(values)))
    back = paired_ratio([(block, 1 / value) for block, value in enumerate(values)])
    assert there.low is not None
    assert back.high is not None
    assert there.value * back.value == pytest.approx(1.0)
    assert math.log(there.low) == pytest.approx(-math.log(back.high), abs=1e-9)


@given(st.lists(ratios, min_size=2, max_size=12), st.floats(0.1, 10))
def test_a_common_factor_moves_the_ratio_and_leaves_the_spread(
    values: list[float], factor: float
) -> None:
    plain = paired_ratio(list(enumerate(values)))
    scaled = paired_ratio([(block, value * factor) for block, value in enumerate(values)])
    assert scaled.value == pytest.approx(plain.value * factor)
    assert scaled.spread == pytest.approx(plain.spread, abs=1e-9)


@given(st.floats(0.0, 0.5), st.floats(0.01, 0.3))
def test_pairs_needed_is_the_fewest_that_suffice(spread: float, half_width: float) -> None:
    n = pairs_needed(spread, half_width=half_width, minimum=3, maximum=20)
    assert 3 <= n <= 20
    assert n == 20 or half_width_of(spread, n) <= half_width
    assert n == 3 or half_width_of(spread, n - 1) > half_width


def test_pairs_needed_grows_with_noise() -> None:
    needed = [pairs_needed(s, half_width=0.05, minimum=3, maximum=20) for s in (0.0, 0.03, 0.08)]
    assert needed == [3, 4, 13]


def test_wide_spread_is_seen() -> None:
    assert spreads_too_widely(paired_ratio([(0, 1.0), (1, 1.5), (2, 0.8), (3, 1.2)]))
    assert not spreads_too_widely(paired_ratio([(0, 1.9), (1, 2.0), (2, 2.1), (3, 2.0)]))


def test_one_sided_bound_is_inside_the_two_sided_one() -> None:
    values = [0.01, 0.03, -0.02, 0.00]
    upper, two_sided = upper_bound(values), mean_interval(values).high
    assert upper is not None
    assert two_sided is not None
    assert mean_interval(values).mean < upper < two_sided
    assert upper_bound([0.01]) is None
