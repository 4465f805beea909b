"""The feed-forward half of a block."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from twofold.model import Model


class FeedForward(nn.Module):
    def __init__(self, model: Model) -> None:
        super().__init__()
        self.activation = model.activation
        self.up = nn.Linear(model.hidden, model.ffn, bias=model.bias)
        self.gate = (
            nn.Linear(model.hidden, model.ffn, bias=model.bias)
            if model.activation == "swiglu"
            else None
        )
        self.down = nn.Linear(model.ffn, model.hidden, bias=model.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        wide = self.up(hidden)
        if self.gate is not None:
            wide = F.silu(self.gate(hidden)) * wide
        elif self.activation == "gelu":
            wide = F.gelu(wide)
        else:
            wide = F.relu(wide).square()
        out: Tensor = self.down(wide)
        return out
