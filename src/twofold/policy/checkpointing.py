"""How often to save: often enough that little is lost, seldom enough that little is spent.

Symbols: C stall of one checkpoint, M = 1/rate mean time between failures, R time to be running
again. Failures are taken as a Poisson process, each of which stops the whole job.
"""

from __future__ import annotations

from collections import Counter
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from twofold.fleet import Fleet
from twofold.plan import Plan
from twofold.policy.hosts import pool_of_rank

Array = NDArray[np.float64]
Column = Array | float

SECONDS_PER_HOUR = 3600.0
RAREST_PER_S = 1e-12
"""A failure in thirty thousand years stands for none, so that intervals stay finite."""
Interval = float | Literal["best"]
"""Seconds of training between checkpoints, or as many as lose the least time."""
ASSUMED_INTERVAL_S = 60.0
"""Where a fleet's file does not say how often its devices fail."""


def failures_per_s(
    num_devices: Column,
    device_failures_per_hour: Column,
    job_failures_per_hour: Column = 0.0,
    num_nodes: Column = 0.0,
    preemptions_per_node_hour: Column = 0.0,
) -> Array:
    """rate = (N r_hw + r_job + nodes r_preempted) / 3600.

    r_hw of all that stops a job, per device: 1.97e-5 on Llama 3's 16,384 H100 (arXiv 2407.21783:
    419 in 54 days, so 3.09 h between them), 1.2e-5 and 3.4e-5 on Meta's two A100 clusters
    (Kokolis et al. 2025, arXiv 2410.21680). Those measured 7.9 h at 1,024 devices where N r_hw
    gives 28.8 h: research jobs also carry r_job, errors of software and users, 0.09 an hour
    there. Independent failures; one that takes out a rack at once counts as one.
    """
    per_hour = num_devices * device_failures_per_hour + job_failures_per_hour
    return np.asarray((per_hour + num_nodes * preemptions_per_node_hour) / SECONDS_PER_HOUR)


def best_interval_s(stall_s: Column, rate_per_s: Column, restart_s: Column) -> Array:
    """T = sqrt(2 (M + R) C + C^2), the work between two checkpoints at highest availability.

    Saxena et al. 2024, arXiv 2410.18124 (their T_c counts the checkpoint too: C + this). Valid
    for C << M; beyond, the optimum tends to M, which bounds it here (Daly 2006, eq. 37).
    """
    mean_s = 1.0 / np.maximum(rate_per_s, RAREST_PER_S)
    best_s = np.sqrt(2.0 * (mean_s + restart_s) * stall_s + np.square(stall_s))
    return np.asarray(np.minimum(best_s, mean_s))


def failures_of_plan_per_s(plan: Plan, fleet: Fleet) -> float | None:
    """How often something stops this plan's job; None where its fleet does not say.

    A machine counts once however few of its devices are used.
    """
    ranks = Counter(pool_of_rank(rank, plan) for rank in range(plan.num_ranks))
    total = 0.0
    for name, count in ranks.items():
        pool = fleet.pool(name)
        device, node = pool.node.accelerator.failures_per_hour, pool.preemptions_per_hour
        if device is None and node is None:
            return None
        machines = min(pool.num_nodes, -(-count // pool.node.num_accelerators))
        total += float(
            failures_per_s(
                count,
                device.value if device else 0.0,
                0.0,
                machines,
                node.value if node else 0.0,
            )
        )
    return total


def checkpoint_interval_s(
    stall_s: float, write_s: float, rate_per_s: float | None, restart_s: float
) -> float:
    """The work between two checkpoints of a run, from what its last one took.

    No checkpoint can start before the last is written, so `write_s` bounds it from below.
    """
    if rate_per_s is None:
        return max(ASSUMED_INTERVAL_S, write_s)
    return max(float(best_interval_s(stall_s, rate_per_s, restart_s)), write_s)
