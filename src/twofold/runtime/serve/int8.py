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
        if hidden.device.type == "cpu" and hidden.shape[0] <= MOST_PACKED_ROWS:
            out = torch._weight_int8pack_mm(hidden, self.weight, self.scale)
        else:
            out = (hidden @ self.weight.to(hidden.dtype).t()) * self.scale
        return out if self.bias is None else out + self.bias


MOST_PACKED_ROWS = 16
"""Above it, expanding the weight for a product in full precision is faster on a CPU."""


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
