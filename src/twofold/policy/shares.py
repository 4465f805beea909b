"""How many sequences of a global batch each data rank takes, and in which micro-batches."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from twofold.errors import InputError
from twofold.plan import Plan


def even_shares(total: int, ranks: int) -> tuple[int, ...]:
    """As equal as whole numbers allow, the larger ones first."""
    least, rest = divmod(total, ranks)
    return tuple(least + (rank < rest) for rank in range(ranks))


def balanced_shares(
    total: int,
    time_s_per_sequence: Sequence[float],
    *,
    fixed_s: Sequence[float] | None = None,
    most: Sequence[int] | None = None,
) -> tuple[int, ...]:
    """Whole shares >= 1 that sum to `total` and make the slowest rank as fast as possible.

    Rank i takes fixed_s[i] + time_s_per_sequence[i] x share; `most` are the shares that fit its
    memory. Giving each sequence to the rank that would finish it first is optimal, because a
    rank's time rises with its share (the exchange argument of list scheduling).
    """
    ranks = len(time_s_per_sequence)
    fixed_s = [0.0] * ranks if fixed_s is None else fixed_s
    most = [total] * ranks if most is None else most
    if total < ranks or sum(most) < total or min(most) < 1:
        raise InputError(
            f"{total} sequences cannot be shared among {ranks} data ranks that take 1 to "
            f"{', '.join(str(share) for share in most[:8])}",
            at="plan, shares",
            help="change the global batch, or use other devices",
        )
    shares = [1] * ranks
    queue = [
        (fixed_s[rank] + 2 * time_s_per_sequence[rank], rank)
        for rank in range(ranks)
        if most[rank] > 1
    ]
    heapq.heapify(queue)
    for _ in range(total - ranks):
        _, rank = heapq.heappop(queue)
        shares[rank] += 1
        if shares[rank] < most[rank]:
            finish_s = fixed_s[rank] + (shares[rank] + 1) * time_s_per_sequence[rank]
            heapq.heappush(queue, (finish_s, rank))
    return tuple(shares)


def shares_of(plan: Plan, global_batch: int) -> tuple[int, ...]:
    """Sequences of every data rank, in rank order. InputError where they do not add up."""
    if not plan.shares:
        if global_batch < plan.data_degree:
            raise InputError(
                f"{global_batch} sequences cannot be shared among {plan.data_degree} data ranks",
                at="plan, data_degree",
                help=f"use at most {global_batch} data ranks, or a larger global batch",
            )
        return even_shares(global_batch, plan.data_degree)
    shares = tuple(share.sequences for share in plan.shares for _ in range(share.ranks))
    if sum(shares) != global_batch:
        raise InputError(
            f"the shares add up to {sum(shares)} sequences and the global batch is {global_batch}",
            at="plan, shares",
            help="make them add up",
        )
    return shares


def num_micro_steps(plan: Plan, shares: Sequence[int]) -> int:
    """Micro-batches a step, the same on every rank: collectives are entered by all or by none."""
    steps = -(-max(shares) // plan.micro_batch)
    if min(shares) < steps:
        raise InputError(
            f"a share of {min(shares)} sequences cannot be cut into {steps} micro-batches, which "
            f"the largest share of {max(shares)} needs",
            at="plan, micro_batch",
            help=f"use a micro-batch of at least {-(-max(shares) // min(shares))}",
        )
    return steps


def micro_batches(share: int, num_steps: int) -> tuple[int, ...]:
    """The sizes of a rank's micro-batches, as equal as whole numbers allow."""
    return even_shares(share, num_steps)
