"""Is a calibration believable? What is not is said in a sentence each."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise

from twofold.fleet import Accelerator, Curves, Fleet

_SPREAD = 0.35
_SLOWER_WITH_THREADS = 0.8
_SUPERLINEAR = 1.3
_DISTURBED_FRACTION = 0.2
_BANDWIDTH_BYTES_PER_S = (5e8, 2e13)


def find_implausible(fleet: Fleet) -> list[str]:
    """Sentences on figures that contradict physics or each other; empty when all is well."""
    return [
        sentence
        for pool in fleet.pools
        if (curves := pool.node.accelerator.curves) is not None
        for sentence in (
            *_bandwidth(pool.node.accelerator),
            *_disturbance(curves),
            *_threads(curves),
            *_spread(curves),
        )
    ]


def _bandwidth(accelerator: Accelerator) -> list[str]:
    figure = accelerator.memory.bandwidth_bytes_per_s
    low, high = _BANDWIDTH_BYTES_PER_S
    if figure is None or low <= figure.value <= high:
        return []
    return [f"memory bandwidth of {figure.value / 1e9:.3g} GB/s is not credible"]


def _disturbance(curves: Curves) -> list[str]:
    share = curves.conditions.get("disturbed_fraction")
    if not isinstance(share, float) or share <= _DISTURBED_FRACTION:
        return []
    return [
        f"in {100 * share:.0f} % of the timings other processes had the cores: "
        "calibrate again when the machine is quiet"
    ]


def _threads(curves: Curves) -> list[str]:
    by_precision: dict[str, dict[int, float]] = defaultdict(dict)
    for curve in curves.gemm:
        if curve.op == "linear":
            by_precision[curve.precision][curve.threads] = curve.flop_per_s.value
    sentences = []
    for precision, rates in by_precision.items():
        counts = sorted(rates)
        for few, many in pairwise(counts):
            gain = rates[many] / rates[few]
            if gain < _SLOWER_WITH_THREADS:
                sentences.append(
                    f"{precision} products are slower with {many} threads than with {few}"
                )
            elif gain > _SUPERLINEAR * many / few:
                sentences.append(
                    f"{precision} products gain {gain:.1f}x from {few} to {many} threads: "
                    "the measurement with fewer was disturbed"
                )
    return sentences


def _spread(curves: Curves) -> list[str]:
    return [
        f"{curve.precision} products with {curve.threads} threads scatter by "
        f"{100 * curve.spread:.0f} % about their curve"
        for curve in curves.gemm
        if curve.spread > _SPREAD
    ]
