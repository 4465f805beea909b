"""The network that a `Model` describes: GPT-2's block and the modern one, in one short file.

Shapes: B batch, S sequence, H hidden, N heads, K key/value heads, D head dimension, V vocabulary.
"""

from __future__ import annotations

import importlib
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from twofold.errors import InputError
from twofold.model import Model, embedded_lack
from twofold.plan import Attention, Recompute
from twofold.workload.train import Initialisation


def build_network(model: Model, *, attention: Attention, recompute: Recompute) -> nn.Module:
    """Tokens [B, S] -> logits [B, S, V]. A user's `module:function` is called as it is."""
    if model.entry is None:
        lack = embedded_lack(model)
        if lack is not None:
            raise InputError(
                f"the embedded runtime cannot build this model: {lack}",
                at=f"model '{model.name}'",
                help="plan it for another engine, or name your own network as `entry`",
            )
        return Decoder(model, attention=attention, recompute=recompute)
    module_name, _, function_name = model.entry.partition(":")
    try:
        network = getattr(importlib.import_module(module_name), function_name)(model)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise InputError(
            f"'{model.entry}' does not give a network: {error}",
            at=f"model '{model.name}', entry",
            help="name module:function; the module must be importable from here (PYTHONPATH), "
            "and the function takes the Model and returns a torch.nn.Module",
        ) from error
    if not isinstance(network, nn.Module):
        raise InputError(
            f"'{model.entry}' returned {type(network).__name__}, not a torch.nn.Module",
            at=f"model '{model.name}', entry",
            help="return a module that maps tokens [batch, seq] to logits [batch, seq, vocab]",
        )
    return network


class Decoder(nn.Module):
    def __init__(self, model: Model, *, attention: Attention, recompute: Recompute) -> None:
        super().__init__()
        self.model = model
        self.recompute = recompute
        self.embedding = nn.Embedding(model.vocab, model.hidden)
        self.positions = (
            nn.Embedding(model.max_seq_len, model.hidden) if model.position == "learned" else None
        )
        self.blocks = nn.ModuleList(
            Block(model, attention, value_embedding=index >= model.layers - model.value_embeddings)
            for index in range(model.layers)
        )
        self.norm = make_norm(model)
        self.head = nn.Linear(model.hidden, model.vocab, bias=False)
        if model.tied_embeddings:
            self.head.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        hidden: Tensor = self.embedding(tokens)
        if self.positions is not None:
            hidden = hidden + self.positions.weight[: tokens.shape[1]]
        for block in self.blocks:
            if self.recompute == "full" and self.training:
                hidden = checkpoint(block, hidden, tokens, use_reentrant=False)
            else:
                hidden = block(hidden, tokens)
        logits: Tensor = self.head(self.norm(hidden))
        if self.model.logit_softcap is not None:
            cap = self.model.logit_softcap
            logits = cap * torch.tanh(logits / cap)
        return logits


class Block(nn.Module):
    def __init__(self, model: Model, attention: Attention, *, value_embedding: bool) -> None:
        super().__init__()
        self.attention_norm = make_norm(model)
        self.attention = SelfAttention(model, attention, value_embedding=value_embedding)
        self.mlp_norm = make_norm(model)
        self.mlp = FeedForward(model)

    def forward(self, hidden: Tensor, tokens: Tensor) -> Tensor:
        hidden = hidden + self.attention(self.attention_norm(hidden), tokens)
        mlp: Tensor = self.mlp(self.mlp_norm(hidden))
        return hidden + mlp


class SelfAttention(nn.Module):
    cosine: Tensor
    sine: Tensor
    mask: Tensor

    def __init__(self, model: Model, attention: Attention, *, value_embedding: bool) -> None:
        super().__init__()
        self.model = model
        self.kernel = attention
        self.kv_size = model.kv_heads * model.head_size
        self.query_key_value = nn.Linear(
            model.hidden, model.hidden + 2 * self.kv_size, bias=model.bias
        )
        self.output = nn.Linear(model.hidden, model.hidden, bias=model.bias)
        self.value_embedding = nn.Embedding(model.vocab, self.kv_size) if value_embedding else None
        if model.position == "rotary":
            cosine, sine = rotary_tables(model.max_seq_len, model.head_size)
            self.register_buffer("cosine", cosine, persistent=False)
            self.register_buffer("sine", sine, persistent=False)
        if attention == "explicit":
            mask = torch.full((model.max_seq_len, model.max_seq_len), float("-inf")).triu(1)
            self.register_buffer("mask", mask, persistent=False)

    def forward(self, hidden: Tensor, tokens: Tensor) -> Tensor:
        batch, seq, width = hidden.shape
        model = self.model
        query, key, value = self.query_key_value(hidden).split(
            [width, self.kv_size, self.kv_size], dim=-1
        )
        if self.value_embedding is not None:
            value = value + self.value_embedding(tokens)
        query = query.view(batch, seq, model.heads, model.head_size)
        key = key.view(batch, seq, model.kv_heads, model.head_size)
        value = value.view(batch, seq, model.kv_heads, model.head_size)
        if model.qk_norm:
            query = F.rms_norm(query, (model.head_size,))
            key = F.rms_norm(key, (model.head_size,))
        if model.position == "rotary":
            query = rotate(query, self.cosine[:seq], self.sine[:seq])
            key = rotate(key, self.cosine[:seq], self.sine[:seq])
        mixed = self.attend(query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2), seq)
        out: Tensor = self.output(mixed.transpose(1, 2).reshape(batch, seq, width))
        return out

    def attend(self, query: Tensor, key: Tensor, value: Tensor, seq: int) -> Tensor:
        """[B, N, S, D] x [B, K, S, D] -> [B, N, S, D], causal."""
        if self.kernel == "sdpa":
            return F.scaled_dot_product_attention(
                query, key, value, is_causal=True, enable_gqa=self.model.kv_heads < self.model.heads
            )
        if self.model.kv_heads < self.model.heads:
            groups = self.model.heads // self.model.kv_heads
            key = key.repeat_interleave(groups, dim=1)
            value = value.repeat_interleave(groups, dim=1)
        scores = (query * self.model.head_size**-0.5) @ key.transpose(-1, -2)
        return torch.softmax(scores + self.mask[:seq, :seq], dim=-1).to(value.dtype) @ value


class FeedForward(nn.Module):
    def __init__(self, model: Model) -> None:
        super().__init__()
        self.activation = model.activation
        widening = 2 * model.ffn if model.activation == "swiglu" else model.ffn
        self.up = nn.Linear(model.hidden, widening, bias=model.bias)
        self.down = nn.Linear(model.ffn, model.hidden, bias=model.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        wide = self.up(hidden)
        if self.activation == "gelu":
            wide = F.gelu(wide)
        elif self.activation == "relu2":
            wide = F.relu(wide).square()
        else:
            gate, value = wide.chunk(2, dim=-1)
            wide = F.silu(gate) * value
        out: Tensor = self.down(wide)
        return out


def make_norm(model: Model) -> nn.Module:
    if model.norm == "layernorm":
        return nn.LayerNorm(model.hidden, bias=model.bias)
    return nn.RMSNorm(model.hidden)


def rotary_tables(max_seq_len: int, head_dim: int, base: float = 10_000.0) -> tuple[Tensor, Tensor]:
    """Cosines and sines [S, 1, D/2] of rotary embeddings (Su et al. 2021, equation 15)."""
    inverse = base ** (-torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
    angles = torch.outer(torch.arange(max_seq_len, dtype=torch.float32), inverse)[:, None, :]
    return angles.cos(), angles.sin()


def rotate(heads: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotate [B, S, N, D] pairwise, first half against second, as GPT-NeoX does."""
    first, second = heads.chunk(2, dim=-1)
    return torch.cat((first * cosine - second * sine, first * sine + second * cosine), dim=-1).to(
        heads.dtype
    )


def initialise(
    network: nn.Module, initialisation: Initialisation, generator: torch.Generator
) -> None:
    """Set the weights of a `Decoder` from the seed; a user's own network keeps its own.

    `gpt2`: normal(0, 0.02), residual outputs scaled by 1/sqrt(2 layers) (Radford et al. 2019).
    `zero-residual`: normal(0, 1/sqrt(fan_in)), residual outputs and head zero, embeddings unit
    (the speed-running recipe: the network starts as the identity).
    """
    if not isinstance(network, Decoder):
        return
    layers = network.model.layers
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.ndim < 2:
                parameter.fill_(1.0 if name.endswith("weight") else 0.0)
            elif initialisation == "gpt2":
                scale = 0.02 / math.sqrt(2 * layers) if _is_residual_output(name) else 0.02
                parameter.normal_(0.0, scale, generator=generator)
            elif _is_residual_output(name) or name == "head.weight":
                parameter.zero_()
            elif "value_embedding" in name:
                parameter.normal_(0.0, parameter.shape[1] ** -0.5, generator=generator)
            elif "embedding" in name or "positions" in name:
                parameter.normal_(0.0, 0.5, generator=generator)
            else:
                parameter.normal_(0.0, parameter.shape[1] ** -0.5, generator=generator)


def _is_residual_output(name: str) -> bool:
    return name.endswith(("attention.output.weight", "mlp.down.weight"))
