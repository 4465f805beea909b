"""A mixture of experts in place of the feed-forward network (Shazeer et al. 2017).

Shapes: T tokens, H hidden, F width of an expert, E experts of which this rank holds L, K experts
that a token takes, R = T x K rows: one for every token and expert that it takes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from twofold.model import Experts, Model
from twofold.runtime.train.network.feedforward import FeedForward, activate

Compute = Callable[[Tensor, Sequence[int]], Tensor]
"""(rows [R, H] sorted by expert, rows of each expert held here) -> [R, H]."""


class Exchange(Protocol):
    """Sends rows [R, H], sorted by expert, to the ranks that hold the experts, and back."""

    def __call__(self, rows: Tensor, counts: Tensor, compute: Compute) -> Tensor: ...


class ExpertFeedForward(nn.Module):
    """Each token takes the K experts that its router ranks highest; none is dropped.

    Weights of the chosen are a softmax over the chosen logits (Mixtral, arXiv 2401.04088,
    section 2.1); of one alone that would be 1, from which the router learns nothing, so then it
    is the softmax over all (Switch, arXiv 2101.03961, equation 2). The router works in fp32
    whatever the precision (Switch, section 2.4). A router bias is learned and added to the
    logits. There is no auxiliary loss, since a `Recipe` has none: `load_skew` tells how uneven
    the load is.
    """

    def __init__(self, model: Model, experts: Experts) -> None:
        super().__init__()
        count, bias = experts.count, experts.bias
        self.activation = model.activation
        self.top_k = experts.top_k
        self.router = nn.Linear(model.hidden, count, bias=experts.router_bias)
        self.up = StackedLinear(count, model.hidden, experts.ffn, bias=bias)
        self.gate = (
            StackedLinear(count, model.hidden, experts.ffn, bias=bias) if model.gated else None
        )
        self.down = StackedLinear(count, experts.ffn, model.hidden, bias=bias)
        self.shared = (
            FeedForward(model, width=experts.shared_ffn, bias=bias) if experts.shared_ffn else None
        )
        self.exchange: Exchange | None = None
        self.load: Tensor | None = None

    def forward(self, hidden: Tensor) -> Tensor:
        """[..., H] -> [..., H]."""
        tokens = hidden.flatten(0, -2)
        weights, chosen = self.route(tokens)
        order = chosen.flatten().argsort(stable=True)
        counts = torch.bincount(chosen.flatten(), minlength=self.router.out_features)
        self.load = counts
        rows = _at_product_precision(tokens)[order // self.top_k]
        if self.exchange is None:
            rows = self.compute(rows, counts.tolist())
        else:
            rows = self.exchange(rows, counts, self.compute)
        by_token = rows[order.argsort()].unflatten(0, (-1, self.top_k))
        mixed: Tensor = (weights[:, :, None] * by_token).sum(1).to(rows.dtype).view_as(hidden)
        if self.shared is not None:
            mixed = mixed + self.shared(hidden)
        return mixed

    def route(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """[T, H] -> weights and numbers of the experts that each token takes, both [T, K]."""
        with torch.autocast(tokens.device.type, enabled=False):
            bias = self.router.bias
            logits = F.linear(
                tokens.float(), self.router.weight.float(), None if bias is None else bias.float()
            )
            best, chosen = logits.topk(self.top_k, dim=-1)
            if self.top_k == 1:
                return (best - logits.logsumexp(-1, keepdim=True)).exp(), chosen
            return best.softmax(-1), chosen

    def compute(self, rows: Tensor, counts: Sequence[int]) -> Tensor:
        """The experts held here, each on its own rows: [R, H] -> [R, H], in the order given."""
        up, down = self.up.each(), self.down.each()
        gate = None if self.gate is None else self.gate.each()
        done = []
        for index, part in enumerate(rows.split(list(counts))):
            gated = None if gate is None else F.linear(part, *gate[index])
            wide = activate(self.activation, F.linear(part, *up[index]), gated)
            done.append(F.linear(wide, *down[index]))
        return torch.cat(done)


class StackedLinear(nn.Module):
    """The products of many experts: weight [L, outputs, inputs], bias [L, outputs]."""

    def __init__(self, count: int, inputs: int, outputs: int, *, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(count, outputs, inputs))
        self.bias = nn.Parameter(torch.empty(count, outputs)) if bias else None
        bound = inputs**-0.5
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def each(self) -> list[tuple[Tensor, Tensor | None]]:
        """Weight and bias of every expert. Taken apart at once: one by one, each would have a
        gradient as large as all."""
        weights = _held(self.weight).unbind()
        biases = [None] * len(weights) if self.bias is None else _held(self.bias).unbind()
        return list(zip(weights, biases, strict=True))


def has_experts(model: Model, layer: int) -> bool:
    """After the leading dense layers every `every`-th layer, its last, has experts."""
    if model.experts is None or layer < model.experts.first_layer:
        return False
    return (layer - model.experts.first_layer + 1) % model.experts.every == 0


def load_skew(network: nn.Module) -> float | None:
    """Tokens of the busiest expert over the mean, in the worst layer, of this rank's last
    micro-batch: what expert ranks wait for. None without experts."""
    loads = [
        module.load
        for module in network.modules()
        if isinstance(module, ExpertFeedForward) and module.load is not None
    ]
    if not loads:
        return None
    counts = torch.stack(loads).float()
    return float((counts.amax(1) / counts.mean(1)).max())


def make_feedforward(model: Model, layer: int) -> nn.Module:
    if model.experts is not None and has_experts(model, layer):
        return ExpertFeedForward(model, model.experts)
    return FeedForward(model)


def _held(stack: Tensor) -> Tensor:
    """The experts of this rank."""
    return stack.to_local() if isinstance(stack, DTensor) else stack


def _at_product_precision(tokens: Tensor) -> Tensor:
    """Cast once, where autocast would cast the K times as many rows."""
    kind = tokens.device.type
    return tokens.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else tokens
