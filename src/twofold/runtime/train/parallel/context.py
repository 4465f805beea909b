"""Context parallel: the ranks of a group compute a part of every sequence each.

Shapes: S sequence, c context ranks, so 2c chunks of S / 2c tokens each; [..., S, D] heads.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
import torch.distributed._functional_collectives as functional
from torch import Tensor, nn

from twofold.document import PlanDocument
from twofold.errors import InputError
from twofold.runtime.train.network.attention import SelfAttention
from twofold.runtime.train.network.decoder import Decoder
from twofold.runtime.train.world import World

_gather = getattr(functional, "all_gather_single_autograd", None) or (
    functional.all_gather_tensor_autograd
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SequencePieces:
    """This rank's two chunks of every sequence, and how it sees the keys of the others.

    Rank r takes chunks r and 2c - 1 - r (zigzag, as Megatron's and Llama 3's, arXiv 2407.21783,
    section 3.3.2): under the causal mask chunk i attends to i + 1 chunks, so that every rank
    multiplies (r + 1) + (2c - r) = 2c + 1 chunks by chunks. Contiguous pieces, masked against
    all keys, would cost 4c, and the last rank would need nearly all of it. Keys and values are
    gathered first, which is fewer and larger messages than a ring; their gradients are summed
    and scattered back.
    """

    group: dist.ProcessGroup
    positions: Tensor
    """[S / c]: where in the sequence this rank's tokens stand."""
    order: Tensor
    """[S]: where in what the ranks gave, one after the other, each position is found."""
    ends: tuple[int, int]
    """How many keys the queries of each chunk see, the last of them in part."""

    @classmethod
    def cut(
        cls,
        seq_len: int,
        *,
        degree: int,
        rank: int,
        group: dist.ProcessGroup,
        device: torch.device,
    ) -> SequencePieces:
        """What `rank` of `degree` takes of sequences of `seq_len` tokens."""
        chunks = torch.arange(seq_len, device=device).chunk(2 * degree)
        pieces = [torch.cat((chunks[i], chunks[-1 - i])) for i in range(degree)]
        return cls(
            group=group,
            positions=pieces[rank],
            order=torch.cat(pieces).argsort(),
            ends=(int(chunks[rank][-1]) + 1, int(chunks[-1 - rank][-1]) + 1),
        )

    def gather(self, heads: Tensor) -> Tensor:
        """[..., S / c, D] of every rank -> [..., S, D] in the order of positions."""
        every: Tensor = _gather(heads.movedim(-2, 0).contiguous(), 0, self.group)
        return every.index_select(0, self.order).movedim(0, -2)


def make_pieces(document: PlanDocument, world: World) -> SequencePieces | None:
    """None where every rank computes whole sequences."""
    degree, seq_len = document.plan.context_degree, document.workload.seq_len
    group = world.group("context")
    if group is None:
        return None
    if seq_len % (2 * degree):
        raise InputError(
            f"sequences of {seq_len} tokens cannot be cut into the {2 * degree} chunks of "
            f"{degree} context ranks",
            at="plan, context_degree",
            help=f"use a sequence length that is a multiple of {2 * degree}, or fewer context "
            "ranks",
        )
    return SequencePieces.cut(
        seq_len, degree=degree, rank=world.place.context, group=group, device=world.device
    )


def split_sequences(network: nn.Module, pieces: SequencePieces) -> None:
    """Positions and attention of a decoder over this rank's pieces, in place."""
    for module in network.modules():
        if isinstance(module, Decoder | SelfAttention):
            module.pieces = pieces
