"""The table against what PyTorch itself counts: parameters, FLOP, bytes kept for backward."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.workloads import gpt2_model, modern_model
from twofold.model import Experts, Model, num_parameters, operator_table, training_flop_per_token
from twofold.perf import memory

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.slow

BATCH, SEQ = 4, 128
MODELS = [
    gpt2_model(max_seq_len=SEQ),
    gpt2_model(max_seq_len=SEQ, bias=False, activation="swiglu", position="rotary"),
    modern_model(max_seq_len=SEQ),
    modern_model(max_seq_len=SEQ, heads=4, kv_heads=2, value_embeddings=0, layers=2),
    modern_model(
        max_seq_len=SEQ,
        experts=Experts(count=8, top_k=2, ffn=192, shared_ffn=64, first_layer=1),
    ),
    gpt2_model(
        max_seq_len=SEQ,
        activation="swiglu",
        experts=Experts(count=4, top_k=1, ffn=192, every=2, bias=True, router_bias=True),
    ),
]


def network(model: Model, attention: Any = "sdpa", recompute: Any = "none") -> Any:
    from twofold.runtime.train.network import build_network

    return build_network(model, attention=attention, recompute=recompute).train()


def loss(net: Any, model: Model, precision: str = "fp32") -> Any:
    tokens = torch.randint(0, model.vocab, (BATCH, SEQ))
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        logits = net(tokens).flatten(0, 1).float()
        return torch.nn.functional.cross_entropy(logits, tokens.flatten())


@pytest.mark.parametrize("model", MODELS, ids=range(len(MODELS)))
def test_parameters_equal_the_network_that_runs(model: Model) -> None:
    assert num_parameters(model) == sum(p.numel() for p in network(model).parameters())


@pytest.mark.parametrize("model", MODELS, ids=range(len(MODELS)))
def test_flop_equal_the_frameworks_count(model: Model) -> None:
    """Explicit attention, which the framework counts over all scores: twice the causal half."""
    from torch.utils.flop_counter import FlopCounterMode

    net = network(model, "explicit")
    with FlopCounterMode(display=False) as counter:
        loss(net, model).backward()
    causal = 6 * model.layers * model.hidden * SEQ
    expected = (training_flop_per_token(model, SEQ) + causal) * BATCH * SEQ
    assert counter.get_total_flops() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("attention", ["sdpa", "explicit"])
@pytest.mark.parametrize(
    "model", [MODELS[0], MODELS[2], MODELS[4]], ids=["gpt2", "modern", "experts"]
)
def test_bytes_kept_for_backward_are_what_autograd_keeps(
    model: Model, attention: str, precision: str
) -> None:
    net = network(model, attention)
    own = {t.untyped_storage().data_ptr() for t in (*net.parameters(), *net.buffers())}
    kept: dict[int, int] = {}
    alive = []

    def pack(tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        alive.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss(net, model, precision)
    rows = operator_table(model)
    predicted = memory.saved_bytes(
        rows, np.array([float(BATCH * SEQ)]), SEQ, precision=precision, level="none",
        attention=attention,
    )[0] + memory.cast_bytes(rows, precision)  # fmt: skip
    assert predicted == pytest.approx(sum(kept.values()), rel=0.04)
