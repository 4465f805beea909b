"""The forward and backward passes of a step on one rank."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from twofold.document import PlanDocument
from twofold.plan import Plan
from twofold.runtime.train.parallel.context import SequencePieces, make_pieces
from twofold.runtime.train.parallel.loss import make_loss
from twofold.runtime.train.world import World


class Pass(Protocol):
    """Micro-batches of rows [n, seq_len + 1] in, gradients on the parameters and a loss out.

    `sequence_weight` is what one sequence counts in the loss of the step; weighted losses of all
    ranks add up to the mean over the global batch. `before_last` is called before the backward
    pass that completes the gradients. `repeated` are parameters that a second stage holds too.
    """

    repeated: tuple[nn.Parameter, ...]

    def forward_backward(
        self, micros: Sequence[Tensor], *, sequence_weight: float, before_last: Callable[[], None]
    ) -> Tensor:
        """The weighted loss of this rank's micro-batches; zero where it holds no loss."""
        ...

    def evaluate(self, micros: Sequence[Tensor]) -> Tensor:
        """Sum over this rank's sequences of their mean losses; zero where it holds no loss."""
        ...


class WholePass:
    """Every micro-batch through the whole network, one after the other."""

    repeated: tuple[nn.Parameter, ...] = ()

    def __init__(self, network: nn.Module, document: PlanDocument, world: World) -> None:
        self.network = network
        self.plan = document.plan
        self.world = world
        self.loss = make_loss(document, world)
        self.pieces = make_pieces(document, world)
        self.forward = torch.compile(self._loss) if self.plan.compile else self._loss

    def forward_backward(
        self, micros: Sequence[Tensor], *, sequence_weight: float, before_last: Callable[[], None]
    ) -> Tensor:
        total = torch.zeros((), device=self.world.device)
        for index, micro in enumerate(micros):
            if index == len(micros) - 1:
                before_last()
            with autocast(self.plan, self.world.device):
                loss: Tensor = self.forward(micro.to(self.world.device, non_blocking=True))
            loss = loss * (micro.shape[0] * sequence_weight)
            loss.backward()
            total += loss.detach()
        return total

    def evaluate(self, micros: Sequence[Tensor]) -> Tensor:
        total = torch.zeros((), device=self.world.device)
        for micro in micros:
            with autocast(self.plan, self.world.device):
                total += self._loss(micro.to(self.world.device)) * micro.shape[0]
        return total

    def _loss(self, rows: Tensor) -> Tensor:
        inputs, targets = inputs_and_targets(rows, self.pieces)
        return self.loss(self.network(inputs), targets)


def inputs_and_targets(rows: Tensor, pieces: SequencePieces | None) -> tuple[Tensor, Tensor]:
    """Rows [B, S + 1] -> tokens and their successors [B, S] that this rank computes."""
    if pieces is None:
        return rows[:, :-1], rows[:, 1:]
    return rows[:, pieces.positions], rows[:, pieces.positions + 1]


def autocast(plan: Plan, device: torch.device) -> AbstractContextManager[Any]:
    """bf16: products in bf16, weights and their gradients stay in fp32."""
    if plan.precision == "bf16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext()
