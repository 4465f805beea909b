"""Small engines, and the plain way to the same tokens: the whole text anew for each one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tests.workloads import modern_model
from twofold.model import Model
from twofold.policy.batching import Limits
from twofold.runtime.serve.cache import KvCache
from twofold.runtime.serve.engine import Engine
from twofold.runtime.serve.messages import Request, Token
from twofold.runtime.serve.network import ServingNetwork
from twofold.runtime.serve.rotary import Rotary
from twofold.runtime.train.network import Decoder

CPU = torch.device("cpu")
GROUPED = modern_model(
    name="grouped", layers=2, hidden=48, heads=4, kv_heads=2, ffn=64, vocab=64, max_seq_len=256,
)  # fmt: skip
GATED = modern_model(
    name="gated", layers=2, hidden=32, heads=2, kv_heads=2, ffn=48, vocab=64, max_seq_len=256,
    activation="swiglu", qk_norm=False, value_embeddings=0, logit_softcap=None,
    tied_embeddings=True,
)  # fmt: skip
LEARNED = modern_model(
    name="learned", layers=2, hidden=32, heads=2, kv_heads=2, ffn=48, vocab=64, max_seq_len=256,
    position="learned", norm="layernorm", activation="gelu", bias=True, qk_norm=False,
    value_embeddings=0, logit_softcap=None,
)  # fmt: skip


def make_network(model: Model, seed: int = 0) -> ServingNetwork:
    """Weights so large that the likeliest token stands out."""
    torch.manual_seed(seed)
    network = ServingNetwork(model, Rotary())
    network.fill_buffers(CPU)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return network.requires_grad_(False)


def make_engine(network: ServingNetwork, **limits: Any) -> Engine:
    chosen = Limits(
        **{"max_num_seqs": 8, "max_batched_tokens": 64, "block_tokens": 4, "num_blocks": 256}
        | limits
    )
    cache = KvCache.make(network.model, chosen.num_blocks, chosen.block_tokens, torch.float32, CPU)
    return Engine(network, cache, chosen)


def finish(engine: Engine, requests: list[Request]) -> dict[int, list[Token]]:
    """All at once, to the end: the tokens of each."""
    for request in requests:
        assert engine.fits(request)
        engine.add(request)
    told: dict[int, list[Token]] = {request.id: [] for request in requests}
    while not engine.is_idle:
        for token in engine.step()[0].tokens:
            told[token.id].append(token)
    return told


class Plain:
    """The trained network over the whole text, no cache and no batch."""

    def __init__(self, network: ServingNetwork) -> None:
        self.decoder = Decoder(network.model, attention="explicit", recompute="none")
        self.decoder.load_state_dict(network.state_dict())
        self.decoder.tie()

    @torch.inference_mode()
    def logits(self, tokens: list[int]) -> Tensor:
        """[S, V]."""
        logits: Tensor = self.decoder(torch.tensor([tokens]))[0]
        return logits

    def greedy(self, request: Request) -> list[int]:
        tokens = list(request.prompt)
        while len(tokens) < len(request.prompt) + request.max_new_tokens:
            tokens.append(int(self.logits(tokens)[-1].argmax()))
            if tokens[-1] in request.stop_ids:
                break
        return tokens[len(request.prompt) :]
