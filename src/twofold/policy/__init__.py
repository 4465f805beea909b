"""Pure decisions that a prediction and a run make alike: who holds what, who takes how much."""

from twofold.policy.ranks import Place, blocks_of_stages, place_of, rank_of, stage_of_chunk
from twofold.policy.shares import (
    balanced_shares,
    even_shares,
    micro_batches,
    num_micro_steps,
    shares_of,
)

__all__ = [
    "Place",
    "balanced_shares",
    "blocks_of_stages",
    "even_shares",
    "micro_batches",
    "num_micro_steps",
    "place_of",
    "rank_of",
    "shares_of",
    "stage_of_chunk",
]
