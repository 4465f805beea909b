"""Weights in eight bits: one scale for each output channel, activations as they are."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Int8Linear(nn.Module):
    """W is scale x an integer from -127 to 127, the nearest to what it was; products are those of
    the weight so rounded, up to the order of summation."""

    weight: Tensor
    scale: Tensor

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight, scale = quantise(linear.weight.detach())
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale)
        self.bias = linear.bias

    def forward(self, hidden: Tensor) -> Tensor:
        """[T, inputs] -> [T, outputs]."""
        if hidden.dtype == torch.bfloat16 and hidden.shape[0] <= MOST_PACKED_ROWS:
            out = torch._weight_int8pack_mm(hidden, self.weight, self.scale)
        else:
            wide = hidden.float() if hidden.device.type == "cpu" else hidden
            out = ((wide @ self.weight.to(wide.dtype).t()) * self.scale).to(hidden.dtype)
        return out if self.bias is None else out + self.bias


MOST_PACKED_ROWS = 16
"""Measured on one core (a 1024 x 1024 weight): of bf16 activations the packed product takes 81 us
for 1 row where fp32 takes 143, 763 for 16 where fp32 takes 676, and loses above. Of fp32
activations it is the slow reference (1.3 ms for 1 row), so there the weight is expanded for a
product in fp32: the same memory is saved, and no time."""


def quantise(weight: Tensor) -> tuple[Tensor, Tensor]:
    """[outputs, inputs] -> int8 of that shape, and scales [outputs] in the weight's precision."""
    largest = weight.float().abs().amax(1).clamp_min(1e-12)
    scale = (largest / 127).to(weight.dtype)
    integers = (weight.float() / scale.float()[:, None]).round_().clamp_(-127, 127)
    return integers.to(torch.int8), scale


def with_int8_weights(network: nn.Module) -> None:
    """Replace every product's weight in place; embeddings and norms stay, and so does a head that
    shares the embedding's table."""
    tables = {id(m.weight) for m in network.modules() if isinstance(m, nn.Embedding)}
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Linear) and id(child.weight) not in tables:
                setattr(module, name, Int8Linear(child))
