"""Goodput: the share of the time that is training which lasts, after checkpoints and failures.

Symbols: T work between checkpoints, C stall of one, M = 1/rate mean time between failures, R
time to be running again. Failures are taken as a Poisson process: at a constant rate, each one
stops the whole job and loses the work since the last checkpoint. New machines fail more often
in their first weeks (up to 10 % of the parts), which is not in here.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from twofold.policy.checkpointing import RAREST_PER_S, best_interval_s

Array = NDArray[np.float64]
Column = Array | float

DETECT_S, RESUME_S = 60.0, 240.0
"""Assumed where nobody says: noticing that a rank is gone, and starting all of them again."""

CHECKPOINT_BYTES_PER_PARAMETER = 14.0
"""16-bit weight 2, 32-bit master weight and two moments 12. Published ones are 11 (a 70 billion
parameter model's 782 GB) to 16."""


def checkpoint_stall_s(bytes_per_device: Column, host_bytes_per_s: Column) -> Array:
    """C = bytes / B_host: training waits while state goes to host memory, and is written to
    storage behind its back (two-phase checkpointing: Jiang et al. 2024, MegaScale, arXiv
    2402.15627, section 4.4). `flush_s` bounds how often."""
    return np.asarray(bytes_per_device / host_bytes_per_s)


def flush_s(checkpoint_bytes: Column, storage_bytes_per_s: Column) -> Array:
    """F = bytes / B_storage of the whole job: no checkpoint can start before the last is out."""
    return np.asarray(checkpoint_bytes / storage_bytes_per_s)


def young_interval_s(stall_s: Column, rate_per_s: Column) -> Array:
    """T = sqrt(2 C M) (Young 1974): least lost time. Valid for C << M."""
    return np.sqrt(2.0 * stall_s / np.maximum(rate_per_s, RAREST_PER_S))


def goodput_fraction(
    interval_s: Column, stall_s: Column, rate_per_s: Column, restart_s: Column
) -> Array:
    """g = T / (M e^(R/M) (e^((T + C)/M) - 1)), the inverse of the expected time per time of work.

    Daly 2006, eq. 20: exact for Poisson failures, also during checkpoints and restarts, so it
    lies in (0, 1] at any size, where the first-order (1 - C/T)(1 - (T/2 + R)/M) goes negative.
    """
    rate = np.maximum(rate_per_s, RAREST_PER_S)
    cycle_s = np.asarray(interval_s + stall_s)
    hit = np.minimum(rate * cycle_s, 300.0)
    lost = np.expm1(hit) / hit * np.exp(np.minimum(rate * restart_s, 300.0))
    return np.asarray(interval_s / (cycle_s * np.maximum(lost, 1.0)))


def interval_steps(
    step_s: Column,
    stall_s: Column,
    rate_per_s: Column,
    restart_s: Column,
    shortest_s: Column = 0.0,
) -> Array:
    """Steps between checkpoints: of the two whole numbers about `best_interval_s` the better,
    at least 1 and at least `shortest_s` (see `flush_s`)."""
    fewer, keep, gain = _two_intervals(step_s, stall_s, rate_per_s, restart_s)
    best = np.where(gain > keep, fewer + 1.0, fewer)
    return np.asarray(np.maximum(best, np.ceil(np.asarray(shortest_s / step_s))))


def best_goodput_fraction(
    step_s: Column,
    stall_s: Column,
    rate_per_s: Column,
    restart_s: Column,
    shortest_s: Column = 0.0,
) -> Array:
    """`goodput_fraction` at the best whole number of steps between checkpoints."""
    if np.ndim(shortest_s) == 0 and shortest_s == 0.0:
        _, keep, gain = _two_intervals(step_s, stall_s, rate_per_s, restart_s)
        return np.maximum(keep, gain)
    steps = interval_steps(step_s, stall_s, rate_per_s, restart_s, shortest_s)
    return goodput_fraction(steps * step_s, stall_s, rate_per_s, restart_s)


def _two_intervals(
    step_s: Column, stall_s: Column, rate_per_s: Column, restart_s: Column
) -> tuple[Array, Array, Array]:
    """The whole number of steps below `best_interval_s`, and the goodput there and one above."""
    exact = best_interval_s(stall_s, rate_per_s, restart_s) / step_s
    fewer = np.maximum(np.floor(exact), 1.0)
    keep = goodput_fraction(fewer * step_s, stall_s, rate_per_s, restart_s)
    gain = goodput_fraction((fewer + 1.0) * step_s, stall_s, rate_per_s, restart_s)
    return fewer, keep, gain
