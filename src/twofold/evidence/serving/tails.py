"""Percentiles of latency, and LoadGen's rule for how many requests one needs.

MLPerf LoadGen ends a run early only where the binomial distribution allows a statement about the
percentile: with t requests over the limit, at least h under it are needed so that t or fewer of
h + t had a chance of at most 1 - confidence if the limit were not met (mlcommons/inference,
loadgen/early_stopping.cc; confidence 0.99, tolerance 0).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

CONFIDENCE = 0.99
MOST_QUERIES = 1 << 31


def percentile(values: Sequence[float], fraction: float) -> float:
    """Linear between the closest ranks, as numpy's default."""
    ordered = sorted(values)
    place = fraction * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def queries_needed(num_over: int, fraction: float, *, confidence: float = CONFIDENCE) -> int:
    """The fewest requests in all, `num_over` of them over the limit, that show with `confidence`
    that at least `fraction` of all requests are within it.

    The smallest n with P[Binomial(n, 1 - fraction) <= num_over] <= 1 - confidence.
    """
    from scipy.special import bdtr

    low, high = num_over, max(2, 2 * num_over)
    while bdtr(num_over, high, 1 - fraction) > 1 - confidence:
        low, high = high, 2 * high
        assert high < MOST_QUERIES
    while high - low > 1:
        middle = (low + high) // 2
        if bdtr(num_over, middle, 1 - fraction) > 1 - confidence:
            low = middle
        else:
            high = middle
    return high


def safe_percentile(
    values: Sequence[float], fraction: float, *, confidence: float = CONFIDENCE
) -> float | None:
    """A bound that the true percentile exceeds with a chance of at most 1 - confidence: the
    highest value but t, with t as large as the number of requests allows; LoadGen's estimate of
    SingleStream. None where the requests are too few for any.
    """
    number = len(values)
    if number < queries_needed(1, fraction, confidence=confidence):
        return None
    low, high = 1, number
    while high - low > 1:
        middle = (low + high) // 2
        if queries_needed(middle, fraction, confidence=confidence) <= number:
            low = middle
        else:
            high = middle
    return sorted(values)[number - low]
