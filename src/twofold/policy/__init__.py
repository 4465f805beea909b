"""Pure decisions that a prediction and a run make alike: who holds what, who takes how much."""

from twofold.policy.hosts import num_machines, pool_of_rank, ranks_of_hosts
from twofold.policy.ranks import Place, blocks_of_stages, place_of, rank_of, stage_of_chunk
from twofold.policy.rebalance import rebalanced_shares, stragglers
from twofold.policy.shares import (
    balanced_shares,
    even_shares,
    micro_batches,
    num_micro_steps,
    shares_of,
)
from twofold.policy.shrink import Shrunk, shrink

__all__ = [
    "Place",
    "Shrunk",
    "balanced_shares",
    "blocks_of_stages",
    "even_shares",
    "micro_batches",
    "num_machines",
    "num_micro_steps",
    "place_of",
    "pool_of_rank",
    "rank_of",
    "ranks_of_hosts",
    "rebalanced_shares",
    "shares_of",
    "shrink",
    "stage_of_chunk",
    "stragglers",
]
