"""The least that plans can take, from a few figures of each: what cannot win is not priced.

No floor is above what the composer finds, so a search that skips plans by it loses none.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from twofold.fleet import Pool
from twofold.perf.cluster import LayerColumns, OrderColumns, slowest_stage
from twofold.perf.cost import rent_usd
from twofold.perf.fleet import RESTART_S, STARTUP_S, Problem
from twofold.perf.layout import LayoutColumns
from twofold.policy.checkpointing import failures_per_s

Array = NDArray[np.float64]
Integers = NDArray[np.int64]

ROUNDING = 1e-9
"""Sums are taken in another order than the composer's: floors lie so much lower."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Floors:
    """`micro_s` are the seconds of one micro-batch of the whole model [levels, segments, keys],
    levels being not all layers recomputed and all of them. `goodput` [orders] is what failures
    leave at most.
    """

    micro_s: Array
    goodput: Array
    num_steps: int
    layout: LayoutColumns
    orders: OrderColumns

    def time_s(self, level: int, key: Integers, held: Integers, order: Integers) -> Array:
        """Of the whole run: computation, messages within layers, weights gathered for every
        micro-batch, waiting for the slowest and restarts; no bubble, exchange or checkpoint."""
        orders = self.orders
        micro_s = slowest_stage(
            self.micro_s[level][:, key],
            orders.stages[order],
            orders.slowest_share[order],
            orders.end_shares[:, order],
        )
        micro_s = np.maximum(micro_s, self.layout.every_s[held])
        step_s = self.orders.micro_batches[order] * micro_s
        step_s *= 1.0 + self.layout.jitter_fraction[held]
        floor_s = (STARTUP_S + self.num_steps * step_s) / self.goodput[order]
        return np.asarray(floor_s * (1.0 - ROUNDING))


def least_usd(pool: Pool, time_s: Array, devices: Array) -> Array:
    """Of a run of at least that time on so many devices; nil where no price is known."""
    if pool.usd_per_node_hour is None:
        return np.zeros_like(time_s)
    nodes = np.ceil(devices / pool.node.num_accelerators)
    return rent_usd(pool.usd_per_node_hour.value, nodes, time_s)


def make_floors(
    problem: Problem, layers: LayerColumns, layout: LayoutColumns, orders: OrderColumns
) -> Floors:
    """The floors of a space, from its tables."""
    part = np.minimum(layers.again_s[0], layers.again_s[1])
    both_s = layers.once_s + np.stack([part, layers.again_s[0]])
    return Floors(
        micro_s=both_s,
        goodput=_most_goodput(problem, orders.devices),
        num_steps=problem.workload.num_steps,
        layout=layout,
        orders=orders,
    )


def _most_goodput(problem: Problem, devices: Array) -> Array:
    """exp(-R / M): each failure costs at least a restart (Daly 2006, eq. 20, with checkpoints
    that take no time and lose no work)."""
    pool, accelerator = problem.pool, problem.pool.node.accelerator
    rate = failures_per_s(
        devices,
        accelerator.failures_per_hour.value if accelerator.failures_per_hour else 0.0,
        0.0,
        np.ceil(devices / pool.node.num_accelerators),
        pool.preemptions_per_hour.value if pool.preemptions_per_hour else 0.0,
    )
    return np.exp(-np.minimum(rate * RESTART_S, 300.0))
