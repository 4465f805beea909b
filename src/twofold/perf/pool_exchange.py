"""Gradients and weights exchanged between data ranks on unlike pools.

All ranks are one flat group. In a data centre rings through it (NCCL, RCCL) cross from pool to
pool once each way, over the ports of one machine, with (M - 1) / M of the bytes in every phase;
inside a pool they take what `layout` says. On calibrated machines gloo runs one ring whose slowest
port sets the pace (`sockets`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from twofold.perf.sockets import Port, all_reduce_s, socket_path
from twofold.perf.uneven import quota_slowdown
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


STATED_PORT = "port"
"""The link of a calibrated machine that a fleet file gave a network port (`catalog.local`)."""
NO_EXCHANGE = Exchange(once_s=0.0, every_s=0.0, across_pools=False)


def gloo_exchange(
    pools: Sequence[tuple[Pool, int]], hops: Sequence[Joint], size_bytes: float
) -> Exchange:
    """Of replicated weights on calibrated machines: `pools` with their ranks, in the order of the
    ring; `hops` are from each pool to the next, the last one's to the first.

    Ports are those that the fleet states; under a quota a processor copies at its share of the
    pace.
    """
    ranks = sum(count for _, count in pools)
    if ranks < 2:
        return NO_EXCHANGE
    ports = [
        Port(bytes_per_s=hop.bytes_per_s, latency_s=hop.latency_s) for hop in hops if hop.stated
    ]
    ports += [port for pool, _ in pools if (port := port_of(pool)) is not None]
    path = socket_path(pools[0][0].node)
    share = min(1.0 / quota_slowdown(pool, 1) for pool, _ in pools)
    path = replace(path, bytes_per_s=path.bytes_per_s * share)
    once = all_reduce_s(size_bytes, ranks, path, ports)
    return Exchange(once_s=once, every_s=0.0, across_pools=len(pools) > 1)


def port_of(pool: Pool) -> Port | None:
    """The network port that a fleet file gives a calibrated machine; None where it gives none."""
    link = pool.node.link("scale-out")
    if link is None or link.name != STATED_PORT:
        return None
    return Port(bytes_per_s=link.bandwidth_bytes_per_s.value, latency_s=link.latency_s.value)


def pieces_exchange_s(
    size_bytes: float,
    ranks: Sequence[int],
    joints: Mapping[tuple[int, int], Joint],
    port_bytes_per_s: float,
    *,
    port_latency_s: float = 0.0,
) -> float:
    """T = V max(2 (M - 1) / M / B_port, 2 r_a r_b / M / B_ab) + 2 l: every rank sends each other
    one a piece of V / M and gets the sum of its own back to all (the narrow exchange of local
    updates), so that between two pools pass r_a r_b pieces each way, twice."""
    total = sum(ranks)
    per_byte = 2.0 * (total - 1) / total / port_bytes_per_s
    for (a, b), joint in joints.items():
        per_byte = max(per_byte, 2.0 * ranks[a] * ranks[b] / total / joint.bytes_per_s)
    latency_s = max([port_latency_s, *(joint.latency_s for joint in joints.values())])
    return size_bytes * per_byte + 2.0 * latency_s


def fleet_exchange(
    pools: Sequence[tuple[Problem, int]],
    hops: Sequence[Joint],
    plan: Plan,
    *,
    gradient_bytes: float = GRADIENT_BYTES,
) -> Exchange:
    """Of the plan's ranks, so many in each pool, in the order of the ring of pools.

    Within pools and between them at the same time, in chunks, so that the slower sets the pace.
    The volumes are `layout`'s: ZeRO-0 reduces gradients, 1 scatters them and
    gathers weights, 3 gathers weights twice and scatters gradients every micro-batch.
    """
    own = [_within(problem, replace(plan, data_degree=ranks)) for problem, ranks in pools]
    once, every = max(o for o, _ in own), max(e for _, e in own)
    if len(pools) < 2:
        return Exchange(once_s=once, every_s=every, across_pools=False)
    model = model_columns(pools[0][0].rows, 1)
    parameters = float((model.dense + model.experts + model.input + model.output)[0])
    width = float(width_bytes(table_of([plan]).precision)[0])
    total = sum(count for _, count in pools)
    part = (total - 1.0) / total
    senders = min(problem.pool.node.num_accelerators for problem, _ in pools)
    rate, latency_s = min(h.rate_of(senders) for h in hops), max(h.latency_s for h in hops)

    def across_s(each: float, phases: float) -> float:
        return float(phases * latency_s * len(pools) + part * each * parameters / rate)

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
