"""What one data rank of a pool takes, as a function of how many sequences it is given.

A step of m micro-batches takes once + m x each, part by part, so two prices of the uniform
composers give every share on every pool: unlike ranks are rows of the same physics. Exchanges
between ranks are not in here (`pool_exchange`): they are the plan's, not the rank's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from twofold.fleet import Fleet, Pool
from twofold.model import Model
from twofold.perf.fleet import Problem, price_table
from twofold.perf.plans import PlanTable, table_of
from twofold.perf.train import estimate_columns
from twofold.plan import Plan
from twofold.workload import Train

Array = NDArray[np.float64]

_NOT_THE_RANKS = ("data messages", "jitter")


@dataclass(frozen=True, slots=True, kw_only=True)
class RankCosts:
    """Seconds by part and bytes, [sizes]: column j is of micro-batches of j + 1 sequences.

    `each_s` is once a micro-batch, `once_s` once a step. The rank's slowest device is meant, and
    its fullest. `wait_fraction` of a step is waited for the slowest of many devices; the true
    time is within exp(-`half_width`) and exp(`half_width`) of it (90 %).
    """

    each_s: dict[str, Array]
    once_s: dict[str, Array]
    peak_bytes: Array
    usable_bytes: float
    wait_fraction: float
    half_width: float
    startup_s: float

    def parts_s(self, share: float, micro_batches: int) -> dict[str, float]:
        """A step of `share` sequences in so many micro-batches, as equal as can be."""
        size = share / micro_batches
        return {
            name: micro_batches * _at(self.each_s[name], size) + _at(self.once_s[name], size)
            for name in self.each_s
        }

    def finish_s(self, micro_batches: int) -> Array:
        """[shares]: when a rank with m, m + 1 .. sequences is done, as far as its memory goes.

        Micro-batches of two neighbouring sizes take time in proportion to how many there are of
        each. A larger share is never done earlier: where a curve says so, it is evened out.
        """
        fitting = self.num_fitting
        if not fitting:
            return np.empty(0)
        step_s = micro_batches * np.add.reduce([*self.each_s.values()])
        step_s = step_s + np.add.reduce([*self.once_s.values()])
        shares = np.arange(micro_batches, micro_batches * fitting + 1) / micro_batches
        sizes = np.arange(1.0, len(step_s) + 1.0)
        return np.maximum.accumulate(np.interp(shares, sizes, step_s))

    @property
    def num_fitting(self) -> int:
        """The largest micro-batch that fits the memory, 0 where none does."""
        too_big = np.flatnonzero(self.peak_bytes > self.usable_bytes)
        return int(too_big[0]) if len(too_big) else len(self.peak_bytes)

    def peak_at(self, share: int, micro_batches: int) -> float:
        return float(self.peak_bytes[-(-share // micro_batches) - 1])


def fleet_rank_costs(
    problem: Problem, plans: Sequence[Plan], most: int, limit_bytes: float
) -> list[RankCosts]:
    """Of a rank of a catalog pool under each plan's degrees, micro-batches up to `most`.

    The plans' `data_degree` are the ranks of all pools, over which states are sharded alike.
    """
    if not plans:
        return []
    table = _micro_batches(plans, problem.pool.name, most)
    # At least as many micro-batches as stages, so that as many are in flight as there can be.
    batch = max(p.data_degree for p in plans) * max(p.pipeline_degree for p in plans) * most
    first, second = (price_table(_with_batch(problem, k * batch), table) for k in (1, 2))
    each_s, once_s = _affine(
        {n: v for n, v in first.step.parts_s.items() if n not in _NOT_THE_RANKS},
        second.step.parts_s,
        batch / (table.data * table.micro_batch),
    )
    peak_bytes = np.where(first.footprint.fits_host, first.footprint.peak_bytes, np.inf)
    jitter = first.step.parts_s["jitter"]
    waiting = jitter / (first.step.step_time_s - jitter)
    accelerator = problem.pool.node.accelerator
    rows = [slice(i * most, (i + 1) * most) for i in range(len(plans))]
    return [
        RankCosts(
            each_s={name: column[row] for name, column in each_s.items()},
            once_s={name: column[row] for name, column in once_s.items()},
            peak_bytes=peak_bytes[row],
            usable_bytes=min(limit_bytes, accelerator.memory.usable_bytes.value),
            wait_fraction=float(waiting[row][0]),
            half_width=problem.fit.spread_of(accelerator),
            startup_s=0.0,
        )
        for row in rows
    ]


def local_rank_costs(
    model: Model, workload: Train, pool: Pool, plans: Sequence[Plan], limit_bytes: float
) -> RankCosts:
    """Of a process on a calibrated processor: plans that differ in micro-batches of 1, 2 ..

    Under a quota of q cores a process of n threads takes n / q of its time (q < n).
    """
    fleet = Fleet(name=pool.name, pools=(pool,))
    plans = [replace(plan, pool=pool.name) for plan in plans]
    sizes = np.array([float(plan.micro_batch) for plan in plans])
    batch = 2 * len(plans)
    first, second = (
        estimate_columns(model, _of_batch(workload, k * batch), fleet, plans) for k in (1, 2)
    )
    each_s, once_s = _affine(first.step_parts_s, second.step_parts_s, batch / sizes)
    slower = quota_slowdown(pool, plans[0].threads)
    return RankCosts(
        each_s={name: slower * column for name, column in each_s.items()},
        once_s={name: slower * column for name, column in once_s.items()},
        peak_bytes=first.peak_memory_bytes,
        usable_bytes=min(limit_bytes, pool.node.accelerator.memory.usable_bytes.value),
        wait_fraction=0.0,
        half_width=float(np.log(first.step_time_high_s / first.step_time_s).max()),
        startup_s=slower * float(first.startup_s.max()),
    )


def quota_slowdown(pool: Pool, threads: int) -> float:
    """n / q: threads over the cores that a quota leaves them, 1 where it leaves enough."""
    return 1.0 if pool.cpu_cores is None else max(1.0, threads / pool.cpu_cores.value)


def _affine(
    first: dict[str, Array], second: dict[str, Array], micros: Array
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Slope and intercept of each part from its values at `micros` and twice as many."""
    each = {name: (second[name] - column) / micros for name, column in first.items()}
    once = {name: first[name] - micros * each[name] for name in first}
    return each, once


def _micro_batches(plans: Sequence[Plan], pool: str, most: int) -> PlanTable:
    """Each plan with micro-batches of 1 to `most`."""
    one = table_of([replace(plan, pool=pool) for plan in plans])
    columns = {f.name: np.repeat(getattr(one, f.name), most) for f in fields(PlanTable)}
    return PlanTable(**{**columns, "micro_batch": np.tile(np.arange(1, most + 1), len(plans))})


def _with_batch(problem: Problem, global_batch: int) -> Problem:
    return replace(problem, workload=_of_batch(problem.workload, global_batch))


def _of_batch(workload: Train, global_batch: int) -> Train:
    return replace(workload, recipe=replace(workload.recipe, global_batch=global_batch))


def _at(column: Array, size: float) -> float:
    return float(np.interp(size, np.arange(1.0, len(column) + 1.0), column))
