"""The network is what its Model says, and its parts agree with what they replace."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

pytest.importorskip("torch")

import torch

from twofold.errors import InputError
from twofold.model import Model
from twofold.plan import Plan
from twofold.runtime.train.network import Decoder, build_network, initialise
from twofold.runtime.train.optimizers import (
    Muon,
    learning_rate_fraction,
    make_optimizers,
    orthogonalise,
)
from twofold.workload import Recipe

GPT2: dict[str, Any] = {
    "layers": 2, "hidden": 32, "heads": 4, "kv_heads": 4, "ffn": 64, "vocab": 50,
    "max_seq_len": 16,
}  # fmt: skip
MODERN: dict[str, Any] = GPT2 | {
    "norm": "rmsnorm", "activation": "relu2", "position": "rotary", "qk_norm": True,
    "bias": False, "tied_embeddings": False, "value_embeddings": 1, "logit_softcap": 15.0,
}  # fmt: skip
GROUPED: dict[str, Any] = MODERN | {"kv_heads": 2, "activation": "swiglu"}


def network_of(fields: dict[str, Any], **options: Any) -> torch.nn.Module:
    model = Model(name="m", **fields)
    network = build_network(
        model,
        attention=options.get("attention", "sdpa"),
        recompute=options.get("recompute", "none"),
    )
    initialise(network, "gpt2", 3)
    return network


@pytest.mark.parametrize("fields", [GPT2, MODERN, GROUPED])
def test_explicit_attention_equals_sdpa(fields: dict[str, Any]) -> None:
    tokens = torch.randint(50, (3, 16), generator=torch.Generator().manual_seed(0))
    fused, explicit = (network_of(fields, attention=kind) for kind in ("sdpa", "explicit"))
    torch.testing.assert_close(fused(tokens), explicit(tokens), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("fields", [GPT2, MODERN])
def test_recompute_changes_no_gradient(fields: dict[str, Any]) -> None:
    tokens = torch.randint(50, (3, 16), generator=torch.Generator().manual_seed(0))
    gradients = []
    for recompute in ("none", "full"):
        network = network_of(fields, recompute=recompute)
        network(tokens).square().mean().backward()
        gradients.append([p.grad for p in network.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, recomputed, rtol=0, atol=0)


@pytest.mark.parametrize("fields", [GPT2, MODERN, GROUPED])
def test_no_position_sees_the_future(fields: dict[str, Any]) -> None:
    network = network_of(fields)
    tokens = torch.randint(50, (1, 16), generator=torch.Generator().manual_seed(0))
    changed = tokens.clone()
    changed[0, 9:] = (changed[0, 9:] + 1) % 50
    before, after = network(tokens), network(changed)
    torch.testing.assert_close(before[:, :9], after[:, :9])
    assert not torch.allclose(before[:, 9:], after[:, 9:])


def test_softcap_bounds_the_logits() -> None:
    network = network_of(MODERN)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(100)
    assert network(torch.zeros(1, 16, dtype=torch.int64)).abs().max() <= 15.0


def test_orthogonalised_singular_values_are_near_one() -> None:
    matrices = torch.randn(3, 24, 64, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalise(matrices, 5, torch.float32))
    assert values.min() > 0.5
    assert values.max() < 1.3


def test_muon_agrees_with_torchs_own() -> None:
    """Against `torch.optim.Muon`, which works in bfloat16: equal to that precision."""
    generator = torch.Generator().manual_seed(0)
    start, gradient = (torch.randn(32, 64, generator=generator) for _ in range(2))
    ours = torch.nn.Parameter(start.clone())
    ours.grad = gradient.clone()
    Muon([ours], lr=0.02, momentum=0.95, weight_decay=0.1, steps=5, precision=torch.float32).step()
    reference = torch.nn.Parameter(start.clone())
    reference.grad = gradient.clone()
    torch.optim.Muon([reference], lr=0.02, momentum=0.95, weight_decay=0.1).step()
    moved = (ours - start).norm()
    assert (ours - reference).norm() < 0.02 * moved


def test_every_parameter_is_in_exactly_one_optimizer() -> None:
    network = network_of(MODERN)
    recipe = Recipe(optimizer="muon", learning_rate=0.02, adam_learning_rate=0.01, global_batch=1)
    optimizers = make_optimizers(network, recipe, Plan(micro_batch=1))
    held = [p for o in optimizers for g in o.param_groups for p in g["params"]]
    assert len(held) == len({id(p) for p in held}) == len(list(network.parameters()))
    matrices = optimizers[0].param_groups[0]["params"]
    assert all(p.ndim == 2 for p in matrices)
    assert len(matrices) == 2 * 4


@pytest.mark.parametrize("schedule", ["cosine", "linear", "trapezoid"])
def test_schedules_warm_up_and_end_at_the_final_fraction(schedule: Any) -> None:
    recipe = Recipe(
        learning_rate=1.0, global_batch=1, schedule=schedule, warmup_fraction=0.1,
        final_learning_rate_fraction=0.1,
    )  # fmt: skip
    rates = [learning_rate_fraction(recipe, step, 100) for step in range(100)]
    assert rates[0] < rates[5] < rates[9] <= 1.0
    assert max(rates) <= 1.0
    assert rates[-1] == pytest.approx(0.1, abs=0.02)
    assert all(later <= earlier for earlier, later in pairwise(rates[10:]))


@pytest.mark.parametrize("entry", ["no.such.module:f", "math:nothing", "math:sqrt", "nonsense"])
def test_a_users_entry_that_is_no_network_is_refused(entry: str) -> None:
    with pytest.raises(InputError, match="does not give a network"):
        build_network(Model(name="mine", entry=entry, **GPT2), attention="sdpa", recompute="none")


def test_grouped_heads_have_smaller_projections() -> None:
    network = network_of(GROUPED)
    assert isinstance(network, Decoder)
    assert network.blocks["0"].attention.query_key_value.weight.shape == (32 + 2 * 16, 32)


def test_what_it_cannot_build_is_refused_by_name() -> None:
    with pytest.raises(InputError, match="cannot build this model: it has sliding windows"):
        network_of(GROUPED | {"window": 8})
