"""The feed-forward half of a block."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from twofold.model import Model
from twofold.model.architecture import Activation


class FeedForward(nn.Module):
    """`width` and `bias` are the model's own, unless it is an expert that every token takes."""

    def __init__(self, model: Model, *, width: int | None = None, bias: bool | None = None) -> None:
        super().__init__()
        width = model.ffn if width is None else width
        bias = model.bias if bias is None else bias
        self.activation = model.activation
        self.up = nn.Linear(model.hidden, width, bias=bias)
        self.gate = nn.Linear(model.hidden, width, bias=bias) if model.gated else None
        self.down = nn.Linear(width, model.hidden, bias=bias)

    def forward(self, hidden: Tensor) -> Tensor:
        gate = None if self.gate is None else self.gate(hidden)
        out: Tensor = self.down(activate(self.activation, self.up(hidden), gate))
        return out


def activate(activation: Activation, wide: Tensor, gate: Tensor | None) -> Tensor:
    """What stands between the two products; swiglu multiplies by the gate."""
    if gate is not None:
        return F.silu(gate) * wide
    if activation == "gelu":
        return F.gelu(wide)
    return F.relu(wide).square()
