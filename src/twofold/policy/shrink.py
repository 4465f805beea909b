"""Going on with fewer machines: the same training on the data ranks that are left."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from twofold.errors import InputError, JobFailed
from twofold.plan import Plan, Share
from twofold.policy.ranks import place_of
from twofold.policy.shares import balanced_shares, even_shares, num_micro_steps, shares_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Shrunk:
    """`kept[i]` is the rank, in the plan before, that goes on as rank `i`."""

    plan: Plan
    kept: tuple[int, ...]


def shrink(plan: Plan, lost_ranks: Collection[int], global_batch: int) -> Shrunk:
    """The plan without the data ranks that lost a part; the global batch stays as it is.

    A data rank is all ranks that split its sequences and layers (tensor, context, pipeline): it
    goes on whole or not at all. JobFailed where nothing whole is left. A data rank that is left
    alone has nobody to exchange local updates with, so the plan then goes on without them.
    """
    broken = {place_of(rank, plan).data for rank in lost_ranks}
    left = [data for data in range(plan.data_degree) if data not in broken]
    if not left:
        raise JobFailed(
            f"the {len(lost_ranks)} lost ranks held a part of every data rank "
            f"({_group(plan)}), so the plan cannot go on without them",
            at="plan, data_degree",
            help="bring the machine back and start again: the run goes on from its checkpoint",
        )
    experts_over = len(left) * plan.context_degree
    if experts_over % plan.expert_degree:
        raise JobFailed(
            f"the experts are spread over {plan.expert_degree} ranks, which do not divide the "
            f"{experts_over} that are left",
            at="plan, expert_degree",
            help="bring the machine back, or plan again for those that are left",
        )
    unsharded = plan.shard_degree and len(left) % plan.shard_degree
    smaller = replace(
        plan,
        data_degree=len(left),
        shares=(),
        shard_degree=0 if unsharded else plan.shard_degree,
    )
    if len(left) == 1:
        smaller = replace(smaller, local_steps=0, exchange_precision="fp32", exchange_fragments=1)
    kept = tuple(rank for rank in range(plan.num_ranks) if place_of(rank, plan).data in left)
    return Shrunk(plan=_with_shares(smaller, plan, left, global_batch), kept=kept)


def _with_shares(smaller: Plan, plan: Plan, left: list[int], global_batch: int) -> Plan:
    """Ranks that took more sequences before, being faster, take more of those left behind.

    Where such shares cannot be cut into as many micro-batches each, they become even, and where
    even ones cannot either, the micro-batch grows (less than twofold).
    """
    if len(left) > global_batch:
        raise JobFailed(
            f"{global_batch} sequences are fewer than the {len(left)} data ranks left",
            at="workload, global_batch",
            help="plan again with fewer data ranks",
        )
    shares = even_shares(global_batch, len(left))
    if plan.shares:
        before = shares_of(plan, global_batch)
        unlike = balanced_shares(global_batch, [1.0 / before[data] for data in left])
        if _can_run(smaller, unlike):
            shares = unlike
    if not _can_run(smaller, shares):
        smaller = replace(smaller, micro_batch=-(-max(shares) // min(shares)))
    if not plan.shares:
        return smaller
    pools = [share.pool for share in plan.shares for _ in range(share.ranks)]
    runs = groupby(zip([pools[data] for data in left], shares, strict=True))
    return replace(
        smaller,
        shares=tuple(
            Share(pool=pool, ranks=len(list(run)), sequences=sequences)
            for (pool, sequences), run in runs
        ),
    )


def _can_run(plan: Plan, shares: Sequence[int]) -> bool:
    try:
        num_micro_steps(plan, shares)
    except InputError:
        return False
    return True


def _group(plan: Plan) -> str:
    return (
        f"{plan.tensor_degree} tensor x {plan.context_degree} context x "
        f"{plan.pipeline_degree} pipeline"
    )
