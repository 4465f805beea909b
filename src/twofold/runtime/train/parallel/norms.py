"""The norm of a gradient whose parts lie on many ranks, and its clipping."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn

from twofold.runtime.train.shards import local_part, num_shards, settle_gradient


class GradientClip:
    """Scales gradients down to a norm of `most`, the same on every rank.

    Every element counts once: a rank adds the squares of what it holds over the number of ranks
    that hold the same, and the sum runs over `group`, of `ranks` ranks on `pipeline_degree`
    stages; `repeated` are held by two of them. Where all ranks hold everything (`group` None)
    nothing need be sent.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        most: float,
        *,
        group: dist.ProcessGroup | None,
        pipeline_degree: int,
        repeated: Collection[nn.Parameter] = (),
    ) -> None:
        self.parameters = list(parameters)
        self.most = most
        self.group = group
        self.repeated = set(repeated)
        self.holders = group.size() // pipeline_degree if group is not None else 1

    def __call__(self) -> Tensor:
        """The norm before clipping."""
        if self.group is None:
            return nn.utils.clip_grad_norm_(self.parameters, self.most)
        with torch.no_grad():
            return self._clip(self.group)

    def _clip(self, group: dist.ProcessGroup) -> Tensor:
        held = [p for p in self.parameters if p.grad is not None]
        for parameter in held:
            settle_gradient(parameter)
        gradients = [local_part(p.grad) for p in held if p.grad is not None]
        weights = [num_shards(p) / self.holders / (2 if p in self.repeated else 1) for p in held]
        squares = torch.stack(torch._foreach_norm(gradients)).double().square()
        total = (squares * torch.tensor(weights, device=squares.device)).sum()
        dist.all_reduce(total, group=group)
        norm = total.sqrt().float()
        torch._foreach_mul_(gradients, torch.clamp(self.most / (norm + 1e-6), max=1.0))
        return norm
