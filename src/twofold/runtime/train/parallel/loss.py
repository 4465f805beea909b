"""The loss of logits: what every pass, whole or in stages, ends with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from twofold.document import PlanDocument
from twofold.runtime.train.world import World

Loss = Callable[[Tensor, Tensor], Tensor]


def make_loss(document: PlanDocument, world: World) -> Loss:
    """(logits [B, S, V], targets [B, S]) -> mean nats per token of these rows.

    Tensor ranks hold V/t of the logits each, and all get the same loss.
    """
    group = world.group("tensor")
    if group is None:
        return _cross_entropy
    first = world.place.tensor * -(-document.model.vocab // group.size())

    def split_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
        loss: Tensor = _SplitCrossEntropy.apply(  # type: ignore[no-untyped-call]
            logits.flatten(0, 1).float(), targets.flatten() - first, group
        )
        return loss

    return split_cross_entropy


def _cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())


class _SplitCrossEntropy(torch.autograd.Function):
    """Cross-entropy of logits [n, v] whose vocabulary is split over a group.

    Two numbers a token are sent, never the logits: its largest logit, then the sum of
    exponentials beside the target's own logit. `targets` count from this rank's first entry;
    those outside [0, v) are another rank's.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor, group: dist.ProcessGroup) -> Tensor:
        largest = logits.max(dim=-1).values
        dist.all_reduce(largest, dist.ReduceOp.MAX, group=group)
        shifted = logits - largest[:, None]
        mine = (targets >= 0) & (targets < logits.shape[-1])
        columns = torch.where(mine, targets, 0)[:, None]
        target = shifted.gather(1, columns)[:, 0] * mine
        exponentials = shifted.exp_()
        sums = torch.stack([exponentials.sum(dim=-1), target])
        dist.all_reduce(sums, group=group)
        ctx.save_for_backward(exponentials.div_(sums[0][:, None]), columns, mine)
        return (sums[0].log() - sums[1]).mean()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        probabilities, columns, mine = ctx.saved_tensors
        hit = -mine.to(probabilities.dtype)[:, None]
        return (
            probabilities.scatter_add(1, columns, hit).mul_(gradient / probabilities.shape[0]),
            None,
            None,
        )
