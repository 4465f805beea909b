"""Experts: each token takes those that it chose, none is dropped, and optimizers know the stacks.

That ranks train as one process does is in the parity cases.
"""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("torch")

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.runtime.parity_cases import MIXTURE, Case
from tests.runtime.parity_worker import document_of
from twofold.errors import InputError
from twofold.model import Experts, Model
from twofold.plan import Plan
from twofold.runtime.train.network import build_network, initialise
from twofold.runtime.train.network.experts import (
    ExpertFeedForward,
    StackedLinear,
    load_skew,
)
from twofold.runtime.train.network.feedforward import FeedForward
from twofold.runtime.train.optimizers import Muon, make_optimizers
from twofold.runtime.train.support import refuse_unsupported
from twofold.workload import Recipe

MODEL: dict[str, Any] = {
    "name": "mixture", "layers": 4, "hidden": 16, "heads": 2, "kv_heads": 2, "ffn": 32, "vocab": 50,
    "max_seq_len": 16, "norm": "rmsnorm", "activation": "swiglu", "position": "rotary",
    "bias": False, "tied_embeddings": False,
}  # fmt: skip


def layer_of(seed: int = 0, **fields: Any) -> ExpertFeedForward:
    torch.manual_seed(seed)
    experts = Experts(**({"count": 4, "top_k": 2, "ffn": 24} | fields))
    layer = ExpertFeedForward(Model(**MODEL, experts=experts), experts)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(0.0, 0.3)
    return layer


def token_by_token(layer: ExpertFeedForward, hidden: Tensor) -> Tensor:
    """What the definition says, one token and one expert at a time."""
    out = []
    for token in hidden.flatten(0, -2):
        logits = layer.router(token)
        chosen = logits.topk(layer.top_k).indices
        probabilities = logits.softmax(0)[chosen]
        if layer.top_k > 1:
            probabilities = probabilities / probabilities.sum()
        mixed = torch.zeros_like(token)
        for probability, expert in zip(probabilities, chosen, strict=True):
            products = {}
            for name in ("up", "gate", "down"):
                stack = getattr(layer, name)
                bias = None if stack.bias is None else stack.bias[expert]
                products[name] = stack.weight[expert], bias
            wide = F.silu(F.linear(token, *products["gate"])) * F.linear(token, *products["up"])
            mixed = mixed + probability * F.linear(wide, *products["down"])
        if layer.shared is not None:
            mixed = mixed + layer.shared(token)
        out.append(mixed)
    return torch.stack(out).view_as(hidden)


@pytest.mark.parametrize(
    "fields",
    [{}, {"top_k": 1}, {"top_k": 4, "shared_ffn": 8}, {"bias": True, "router_bias": True}],
)
def test_each_token_takes_the_experts_that_it_chose(fields: dict[str, Any]) -> None:
    layer = layer_of(**fields)
    hidden = torch.randn(3, 5, 16, requires_grad=True)
    torch.testing.assert_close(layer(hidden), token_by_token(layer, hidden))
    sides = [*layer.parameters(), hidden]
    ours = torch.autograd.grad(layer(hidden).square().sum(), sides)
    theirs = torch.autograd.grad(token_by_token(layer, hidden).square().sum(), sides)
    for mine, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-4, atol=1e-5)


def test_no_token_is_dropped_where_all_choose_the_same_experts() -> None:
    layer = layer_of()
    with torch.no_grad():
        layer.router.weight.zero_()
    hidden = torch.randn(1, 7, 16)
    torch.testing.assert_close(layer(hidden), token_by_token(layer, hidden))
    assert layer.load is not None
    assert sorted(layer.load.tolist()) == [0, 0, 7, 7]
    assert load_skew(layer) == 2.0
    assert load_skew(FeedForward(Model(**MODEL))) is None


def test_the_router_works_in_fp32_where_products_do_not() -> None:
    layer = layer_of()
    hidden = torch.randn(64, 16)
    weights, chosen = layer.route(hidden)
    with torch.autocast("cpu", torch.bfloat16):
        rounded, chosen_rounded = layer.route(hidden)
        assert layer(hidden).dtype is torch.bfloat16
    assert torch.equal(weights, rounded)
    assert torch.equal(chosen, chosen_rounded)


def test_leading_layers_are_dense_then_every_last() -> None:
    experts = Experts(count=2, top_k=1, ffn=8, first_layer=1, every=2)
    network = build_network(
        Model(**MODEL | {"layers": 6}, experts=experts), attention="sdpa", recompute="none"
    )
    kinds = [type(block.mlp) for block in network.blocks.children()]
    dense, mixed = FeedForward, ExpertFeedForward
    assert kinds == [dense, dense, mixed, dense, mixed, dense]


def test_recompute_changes_no_gradient() -> None:
    tokens = torch.randint(50, (3, 16), generator=torch.Generator().manual_seed(0))
    gradients = []
    for recompute in ("none", "full"):
        network = build_network(
            Model(**MODEL, experts=Experts(count=4, top_k=2, ffn=8)),
            attention="sdpa",
            recompute=recompute,
        )
        initialise(network, "gpt2", 3)
        network(tokens).square().mean().backward()
        gradients.append([p.grad for p in network.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, recomputed, rtol=0, atol=0)


def test_starting_weights_are_of_one_expert_not_of_the_stack() -> None:
    model = Model(**MODEL, experts=Experts(count=64, top_k=2, ffn=32, bias=True))
    network = build_network(model, attention="sdpa", recompute="none")
    initialise(network, "zero-residual", 3)
    first = network.blocks["0"].mlp
    assert float(first.up.weight.detach().std()) == pytest.approx(16**-0.5, rel=0.05)
    assert not first.down.weight.any()
    assert not first.up.bias.any()


def test_muon_moves_each_expert_as_if_it_were_alone() -> None:
    settings: dict[str, Any] = {
        "lr": 0.02, "momentum": 0.95, "weight_decay": 0.1, "steps": 5, "precision": torch.float32,
    }  # fmt: skip
    stack = StackedLinear(3, 16, 24, bias=False)
    alone = [torch.nn.Parameter(weight.detach().clone()) for weight in stack.weight]
    gradient = torch.randn_like(stack.weight)
    stack.weight.grad = gradient
    for parameter, part in zip(alone, gradient, strict=True):
        parameter.grad = part.clone()
    Muon([stack.weight], **settings).step()
    Muon(alone, **settings).step()
    torch.testing.assert_close(stack.weight.detach(), torch.stack([p.detach() for p in alone]))


def test_biases_of_experts_are_vectors_to_the_optimizers() -> None:
    model = Model(**MODEL, experts=Experts(count=4, top_k=2, ffn=8, bias=True, router_bias=True))
    network = build_network(model, attention="sdpa", recompute="none")
    recipe = Recipe(optimizer="muon", learning_rate=0.02, adam_learning_rate=0.01, global_batch=1)
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    muon, _ = make_optimizers(network, recipe, Plan(micro_batch=1))
    held = [names[id(p)] for p in muon.param_groups[0]["params"]]
    assert "blocks.0.mlp.up.weight" in held
    assert not any(name.endswith("bias") for name in held)
    recipe = Recipe(learning_rate=0.02, global_batch=1, weight_decay=0.1)
    (adam,) = make_optimizers(network, recipe, Plan(micro_batch=1))
    decayed = [names[id(p)] for g in adam.param_groups if g["weight_decay"] for p in g["params"]]
    assert not any(name.endswith("bias") for name in decayed)


@pytest.mark.parametrize(
    ("plan", "what"),
    [
        ({"expert_degree": 2}, "expert degree 2 does not divide 1 x 1"),
        ({"expert_degree": 3, "data_degree": 3}, "expert degree 3 does not divide the 4 experts"),
        ({"expert_tensor_degree": 2, "data_degree": 2}, "does not split one expert over 2 ranks"),
        ({"expert_degree": 2, "data_degree": 2, "zero_stage": 3}, "the plan asks for both"),
        ({"expert_degree": 2, "data_degree": 2, "rebalance_steps": 5}, "hides their own speeds"),
        ({"tensor_degree": 2, "sequence_parallel": True}, "tensor ranks repeat the experts' work"),
    ],
)
def test_what_experts_do_not_combine_with_is_refused(plan: dict[str, Any], what: str) -> None:
    with pytest.raises(InputError, match=what):
        refuse_unsupported(document_of(Case(name="c", model=MIXTURE, plan=plan)))


def test_a_dense_model_has_no_experts_to_spread() -> None:
    plan = {"expert_degree": 2, "data_degree": 2}
    with pytest.raises(InputError, match="'modern' has no experts to spread over 2 ranks"):
        refuse_unsupported(document_of(Case(name="c", plan=plan)))
