"""Gradients and weights exchanged between data ranks on unlike pools.

In a data centre ranks reduce within their pool and then, each with its piece, with the other
pools (hierarchical; `collectives`): every byte of the model crosses between pools
2 (K - 1) / K times, over all their ports side by side. On calibrated machines gloo runs one flat
ring through all ranks, whose slowest hop sets the pace.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from twofold.fleet import Pool
from twofold.perf.fleet import Problem, rates_of
from twofold.perf.host import host_of
from twofold.perf.joints import Joint
from twofold.perf.layout import GRADIENT_BYTES, layout_columns
from twofold.perf.parameters import model_columns
from twofold.perf.plans import plan_columns, table_of, width_bytes
from twofold.plan import Plan

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """Seconds before any is hidden: once a step, and once a micro-batch (sharded weights)."""

    once_s: float
    every_s: float
    across_pools: bool

    def total_s(self, micro_batches: int) -> float:
        return self.once_s + micro_batches * self.every_s


NO_EXCHANGE = Exchange(once_s=0.0, every_s=0.0, across_pools=False)


def flat_ring_s(size_bytes: float, ranks: int, hop_bytes_per_s: float, hop_s: float) -> float:
    """T = 2 (M - 1) (V / (M B) + l): all-reduce of V bytes round a ring of M ranks in chunks,
    B and l of its slowest hop (Patarasuk and Yuan 2009)."""
    if ranks < 2:
        return 0.0
    return 2.0 * (ranks - 1) * (size_bytes / (ranks * hop_bytes_per_s) + hop_s)


def gloo_exchange(
    pools: Sequence[tuple[Pool, int]], hops: Sequence[Joint], size_bytes: float
) -> Exchange:
    """Of replicated weights on calibrated machines: `pools` with their ranks, in the order of the
    ring; `hops` are from each pool to the next, the last one's to the first."""
    ranks = sum(count for _, count in pools)
    rates, latencies = [hop.rate_of(1) for hop in hops], [hop.latency_s for hop in hops]
    for pool, count in pools:
        port = pool.node.link("scale-out")
        if count > 1 and port is not None:
            rates.append(port.bandwidth_bytes_per_s.value)
            latencies.append(port.latency_s.value)
    if ranks < 2:
        return NO_EXCHANGE
    once = flat_ring_s(size_bytes, ranks, min(rates), max(latencies))
    return Exchange(once_s=once, every_s=0.0, across_pools=len(pools) > 1)


def fleet_exchange(
    pools: Sequence[tuple[Problem, int]],
    hops: Sequence[Joint],
    plan: Plan,
    *,
    gradient_bytes: float = GRADIENT_BYTES,
) -> Exchange:
    """Of the plan's ranks, so many in each pool, in the order of the ring of pools.

    Within pools and between them at the same time, in chunks, so that the slower sets the pace;
    latencies add up. The volumes are `layout`'s: ZeRO-0 reduces gradients, 1 scatters them and
    gathers weights, 3 gathers weights twice and scatters gradients every micro-batch.
    """
    own = [_within(problem, replace(plan, data_degree=ranks)) for problem, ranks in pools]
    once, every = max(o for o, _ in own), max(e for _, e in own)
    if len(pools) < 2:
        return Exchange(once_s=once, every_s=every, across_pools=False)
    model = model_columns(pools[0][0].rows, 1)
    parameters = float((model.dense + model.experts + model.input + model.output)[0])
    width = float(width_bytes(table_of([plan]).precision)[0])
    part = (len(pools) - 1.0) / len(pools)
    rate, latency_s = min(h.bytes_per_s for h in hops), max(h.latency_s for h in hops)

    def across_s(each: float, phases: float) -> float:
        return float(phases * latency_s * np.log2(len(pools)) + part * each * parameters / rate)

    if plan.zero_stage == 3:
        every = max(every, across_s(3.0 * width, 3.0))
    elif plan.zero_stage == 0:
        once = max(once, across_s(2.0 * gradient_bytes, 2.0))
    else:
        once = max(once, across_s(gradient_bytes + width, 2.0))
    return Exchange(once_s=float(once), every_s=float(every), across_pools=True)


def _within(problem: Problem, plan: Plan) -> tuple[float, float]:
    """The exchange among the ranks of one pool, once a step and once a micro-batch."""
    table = table_of([plan])
    columns = layout_columns(
        plan_columns(table, problem.workload.recipe.global_batch, problem.model.layers),
        model_columns(problem.rows, 1),
        rates_of(problem, table),
        host_of(problem.pool.node),
    )
    return float(columns.exchange_s[0]), float(columns.every_s[0])
