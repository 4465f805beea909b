"""The loss of logits: what every pass, whole or in stages, ends with."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from twofold.document import PlanDocument
from twofold.runtime.train.world import World

Loss = Callable[[Tensor, Tensor], Tensor]


def make_loss(document: PlanDocument, world: World) -> Loss:
    """(logits [B, S, V], targets [B, S]) -> mean nats per token of these rows."""
    return _cross_entropy


def _cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())
