"""The decoder as it is served: the tokens of many sequences in one row, keys and values in pages.

Parameters are named as in `runtime.train.network`, whose parts it is made of, so that checkpoints
of training are read as they are.
Symbols: T tokens of the step, H hidden, K key/value heads, G query heads of each, D head
dimension, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from twofold.model import Model
from twofold.model.rows import chosen
from twofold.runtime.serve.cache import KvCache
from twofold.runtime.serve.layout import Layout, Span
from twofold.runtime.serve.rotary import Rotary, frequencies
from twofold.runtime.train.network.attention import rotate
from twofold.runtime.train.network.decoder import make_norm
from twofold.runtime.train.network.experts import make_feedforward


@dataclass(frozen=True, slots=True)
class _Step:
    """What every layer needs of a step: its layout, and the rotation of its positions."""

    layout: Layout
    cosine: Tensor | None
    sine: Tensor | None


class PagedAttention(nn.Module):
    """Rows of the fused projection lie by key/value head: its query heads, its key, its value."""

    def __init__(self, model: Model, layer: int) -> None:
        super().__init__()
        self.model = model
        self.group = model.heads // model.kv_heads
        self.windowed = is_windowed(model, layer)
        inner, kv_size = model.heads * model.head_size, model.kv_heads * model.head_size
        self.query_key_value = nn.Linear(
            model.hidden, inner + 2 * kv_size, bias=chosen(model.qkv_bias, model.bias)
        )
        self.output = nn.Linear(inner, model.hidden, bias=chosen(model.output_bias, model.bias))
        has_table = layer >= model.layers - model.value_embeddings
        self.value_embedding = nn.Embedding(model.vocab, kv_size) if has_table else None
        self.head_norm = HeadNorm(model) if model.qk_norm else None

    def forward(self, hidden: Tensor, step: _Step, keys: Tensor, values: Tensor) -> Tensor:
        """[T, H] -> [T, H]; `keys` and `values` of this layer are written to."""
        model, layout = self.model, step.layout
        fused = self.query_key_value(hidden).view(
            -1, model.kv_heads, self.group + 2, model.head_size
        )
        query_key, value = fused[:, :, :-1], fused[:, :, -1]
        if self.value_embedding is not None:
            value = value + self.value_embedding(layout.tokens).view(value.shape)
        if self.head_norm is not None:
            query_key = self.head_norm(query_key)
        if step.cosine is not None and step.sine is not None:
            query_key = rotate(query_key, step.cosine, step.sine)
        query, key = query_key[:, :, :-1], query_key[:, :, -1]
        keys.flatten(0, 1).index_copy_(0, layout.slots, key)
        values.flatten(0, 1).index_copy_(0, layout.slots, value)
        mixed = [self._attend(span, query, key, value, keys, values) for span in layout.spans]
        out: Tensor = self.output(mixed[0] if len(mixed) == 1 else torch.cat(mixed))
        return out

    def _attend(
        self, span: Span, query: Tensor, key: Tensor, value: Tensor, keys: Tensor, values: Tensor
    ) -> Tensor:
        """The span's rows of query [T, K, G, D] -> [rows, K x G x D]."""
        part = slice(span.start, span.stop)
        query = query[part]
        if span.blocks is None:
            seen_keys, seen_values = key[part][None], value[part][None]
        else:
            shape = (span.batch, -1, *keys.shape[-2:])
            seen_keys = keys.index_select(0, span.blocks).view(shape)
            seen_values = values.index_select(0, span.blocks).view(shape)
        seen_keys, seen_values = seen_keys.transpose(1, 2), seen_values.transpose(1, 2)
        mask = span.window_mask if self.windowed else span.mask
        if span.queries == 1:
            # [B, K, G, D]: the query heads of a key stand as its queries, who all see the same
            return F.scaled_dot_product_attention(
                query, seen_keys, seen_values, attn_mask=mask
            ).flatten(1)
        mixed = F.scaled_dot_product_attention(
            query.flatten(1, 2).transpose(0, 1)[None],
            seen_keys,
            seen_values,
            attn_mask=mask,
            is_causal=mask is None,
            enable_gqa=self.group > 1,
        )
        return mixed[0].transpose(0, 1).flatten(1)


class HeadNorm(nn.Module):
    """RMS norm of every query and key head; with a weight for each channel in some families."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.eps: float | None = None
        heads = model.heads // model.kv_heads + 1
        self.weight = (
            nn.Parameter(torch.ones(heads, model.head_size)) if model.qk_norm_weights else None
        )

    def forward(self, query_key: Tensor) -> Tensor:
        """[T, K, G + 1, D], the key last."""
        normed = F.rms_norm(query_key, query_key.shape[-1:], eps=self.eps)
        return normed if self.weight is None else normed * self.weight


class Block(nn.Module):
    def __init__(self, model: Model, layer: int) -> None:
        super().__init__()
        self.attention_norm = make_norm(model)
        self.attention = PagedAttention(model, layer)
        self.mlp_norm = make_norm(model)
        self.mlp = make_feedforward(model, layer)

    def forward(self, hidden: Tensor, step: _Step, keys: Tensor, values: Tensor) -> Tensor:
        hidden = hidden + self.attention(self.attention_norm(hidden), step, keys, values)
        mlp: Tensor = self.mlp(self.mlp_norm(hidden))
        return hidden + mlp


class ServingNetwork(nn.Module):
    """`rotary` says how positions turn, `norm_eps` what norms add (None: as in training)."""

    frequencies: Tensor

    def __init__(self, model: Model, rotary: Rotary, norm_eps: float | None = None) -> None:
        super().__init__()
        self.model = model
        self.rotary = rotary
        self.embedding = nn.Embedding(model.vocab, model.hidden)
        learned = model.position == "learned"
        self.positions = nn.Embedding(model.max_seq_len, model.hidden) if learned else None
        self.blocks = nn.ModuleDict(
            {str(layer): Block(model, layer) for layer in range(model.layers)}
        )
        self.norm = make_norm(model)
        self.head = nn.Linear(model.hidden, model.vocab, bias=False)
        self.tie()
        for module in self.modules():
            if norm_eps is not None and isinstance(module, nn.RMSNorm | HeadNorm):
                module.eps = norm_eps

    def tie(self) -> None:
        """One table for embedding and head; to be repeated where parameters were replaced."""
        if self.model.tied_embeddings:
            self.head.weight = self.embedding.weight

    def fill_buffers(self, device: torch.device) -> None:
        turns = frequencies(self.model.head_size, self.rotary).to(device)
        self.register_buffer("frequencies", turns, persistent=False)

    def forward(self, layout: Layout, cache: KvCache) -> Tensor:
        """Compute a step, its keys and values into the cache: logits [rows, V] in fp32."""
        hidden = self.embedding(layout.tokens)
        if self.positions is not None:
            hidden = hidden + self.positions(layout.positions)
        step = self._step(layout)
        for layer, block in enumerate(self.blocks.values()):
            hidden = block(hidden, step, cache.keys[layer], cache.values[layer])
        logits: Tensor = self.head(self.norm(hidden[layout.rows])).float()
        if self.model.logit_softcap is not None:
            cap = self.model.logit_softcap
            logits = cap * torch.tanh(logits / cap)
        return logits

    def _step(self, layout: Layout) -> _Step:
        if self.model.position != "rotary":
            return _Step(layout, None, None)
        angles = (layout.positions[:, None].float() * self.frequencies)[:, None, None]
        return _Step(layout, angles.cos(), angles.sin())


def is_windowed(model: Model, layer: int) -> bool:
    """Every `global_every`-th layer sees everything, where there is a window at all."""
    if model.window is None:
        return False
    return not (model.global_every and (layer + 1) % model.global_every == 0)
