"""LoadGen's rule against the figures it is known by, and against the binomial itself."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from twofold.evidence.serving.tails import percentile, queries_needed, safe_percentile


def test_known_figures_of_loadgen() -> None:
    """64 queries are the fewest of SingleStream (p90); 459 show p99 with none over."""
    assert queries_needed(1, 0.9) == 64
    assert queries_needed(0, 0.99) == 459


@given(st.integers(0, 200), st.sampled_from([0.5, 0.9, 0.99]))
def test_the_fewest_that_the_binomial_allows(over: int, fraction: float) -> None:
    needed = queries_needed(over, fraction)
    assert binom.cdf(over, needed, 1 - fraction) <= 0.01
    assert binom.cdf(over, needed - 1, 1 - fraction) > 0.01


def test_a_safe_percentile_lies_above_the_plain_one_and_needs_enough_requests() -> None:
    values = [float(v) for v in range(500)]
    safe = safe_percentile(values, 0.9)
    assert safe is not None
    assert safe > percentile(values, 0.9)
    assert safe_percentile(values[:63], 0.9) is None


@given(st.lists(st.floats(0, 1e3), min_size=1, max_size=40), st.floats(0, 1))
def test_percentiles_are_those_of_numpy(values: list[float], fraction: float) -> None:
    assert percentile(values, fraction) == pytest.approx(
        float(np.quantile(values, fraction)), rel=1e-9, abs=1e-9
    )
