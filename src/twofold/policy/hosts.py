"""Which machine runs which ranks."""

from __future__ import annotations

from collections.abc import Sequence

from twofold.errors import InputError
from twofold.fleet import Fleet
from twofold.plan import Plan
from twofold.policy.ranks import place_of
from twofold.policy.shares import even_shares


def ranks_of_hosts(plan: Plan, fleet: Fleet, num_hosts: int) -> tuple[tuple[int, ...], ...]:
    """The ranks of every host, in the order of the hosts.

    Hosts are named in the order of the plan's pools, as many of each as the fleet has machines
    (or one of each). Within a pool, and where the plan uses one pool, hosts are equal.
    """
    pools = [pool_of_rank(rank, plan) for rank in range(plan.num_ranks)]
    used = list(dict.fromkeys(pools))
    ranks = {name: [r for r, pool in enumerate(pools) if pool == name] for name in used}
    if num_hosts == 1:
        return (tuple(range(plan.num_ranks)),)
    if num_hosts > plan.num_ranks:
        raise InputError(
            f"{num_hosts} hosts for {plan.num_ranks} ranks",
            at="--hosts",
            help="use at most as many hosts as the plan has ranks, or plan for more devices",
        )
    if len(used) == 1:
        return _equally(ranks[used[0]], num_hosts)
    machines = [min(fleet.pool(name).num_nodes, len(ranks[name])) for name in used]
    if num_hosts == len(used):
        machines = [1] * len(used)
    if num_hosts != sum(machines):
        told = ", ".join(f"{n} of '{name}'" for n, name in zip(machines, used, strict=True))
        raise InputError(
            f"the plan places its ranks on {sum(machines)} machines ({told}), and {num_hosts} "
            "hosts were given",
            at="--hosts",
            help=f"use {sum(machines)} hosts, or {len(used)} (one of each pool), in that order",
        )
    return tuple(
        host
        for count, name in zip(machines, used, strict=True)
        for host in _equally(ranks[name], count)
    )


def num_machines(plan: Plan, fleet: Fleet) -> int:
    """How many machines the plan's ranks fill, at one rank a device."""
    pools = [pool_of_rank(rank, plan) for rank in range(plan.num_ranks)]
    total = 0
    for name in dict.fromkeys(pools):
        pool = fleet.pool(name)
        needed = -(-pools.count(name) // pool.node.num_accelerators)
        total += max(1, min(pool.num_nodes, needed))
    return total


def pool_of_rank(rank: int, plan: Plan) -> str:
    """The pool a rank belongs to: that of its stage, else of its share, else the plan's."""
    place = place_of(rank, plan)
    if plan.stages:
        return plan.stages[place.pipeline].pool
    if plan.shares:
        pools = [share.pool for share in plan.shares for _ in range(share.ranks)]
        return pools[place.data]
    return plan.pool


def _equally(ranks: Sequence[int], num_hosts: int) -> tuple[tuple[int, ...], ...]:
    counts = even_shares(len(ranks), num_hosts)
    starts = [sum(counts[:host]) for host in range(num_hosts)]
    return tuple(
        tuple(ranks[start : start + count]) for start, count in zip(starts, counts, strict=True)
    )
