"""What a checkpoint holds: tensors by the names that parameters have in the whole model.

No rank, stage or shard is named in it, so that any layout of ranks can take it up: each rank
offers what it holds, whole tensors or shards of them (DTensor), and asks for what it needs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

State = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Saved:
    """What a checkpoint has: the names of its tensors, keys joined by dots, and its step."""

    step: int
    names: frozenset[str]

    def part(self, key: str) -> Saved:
        """What it has under a key."""
        start = key + "."
        names = (name.removeprefix(start) for name in self.names if name.startswith(start))
        return Saved(self.step, frozenset(names))


class Held(Protocol):
    """State of a run that can be taken up again."""

    def state(self) -> State:
        """Nested dictionaries whose leaves are tensors, in use or copied."""
        ...

    def prepare(self, saved: Saved) -> None:
        """Make the tensors that `state` then names, all of them saved, to be read into."""
        ...

    def restore(self, state: State) -> None:
        """Take up what `state` gave and a checkpoint filled in."""
        ...


class TrainingState:
    """Weights, and the optimizers' tensors under their parameter's name.

    Rates, betas and the like are not in it: they follow from the recipe and the step.
    """

    def __init__(self, network: nn.Module, optimizers: list[torch.optim.Optimizer]) -> None:
        self.network = network
        self.optimizers = optimizers

    def state(self) -> State:
        """Tensors in use: reading into them restores the run."""
        return {"network": self.network.state_dict(), "optimizer": self._optimizer_state()}

    def prepare(self, saved: Saved) -> None:
        """Optimizers start afresh where none is saved: local updates keep one of every worker."""
        for optimizer in self.optimizers if saved.part("optimizer").names else ():
            _materialise(optimizer)

    def restore(self, state: State) -> None:
        """Nothing is left to do: the tensors in use were read into."""

    def _optimizer_state(self) -> dict[str, dict[str, Tensor]]:
        names: dict[Tensor, str] = {
            parameter: name for name, parameter in self.network.named_parameters()
        }
        return {
            names[parameter]: {key: v for key, v in tensors.items() if isinstance(v, Tensor)}
            for optimizer in self.optimizers
            for parameter, tensors in optimizer.state.items()
        }


def _materialise(optimizer: torch.optim.Optimizer) -> None:
    """Give a fresh optimizer its state tensors, changing no parameter."""
    for group in optimizer.param_groups:
        rate, decay = group["lr"], group["weight_decay"]
        kept = [parameter.detach().clone() for parameter in group["params"]]
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
        group["lr"], group["weight_decay"] = 0.0, 0.0
        optimizer.step()
        group["lr"], group["weight_decay"] = rate, decay
        with torch.no_grad():
            for parameter, value in zip(group["params"], kept, strict=True):
                parameter.copy_(value)
                parameter.grad = None
