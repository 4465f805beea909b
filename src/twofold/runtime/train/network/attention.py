"""Causal self-attention with grouped key/value heads and rotary positions.

Shapes: B batch, S sequence, N heads, K key/value heads, D head dimension.
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from twofold.model import Model
from twofold.plan import Attention


class Pieces(Protocol):
    """The part of every sequence that this rank computes: two chunks of consecutive tokens."""

    @property
    def positions(self) -> Tensor:
        """[S of this rank]: where in the sequence its tokens stand."""
        ...

    @property
    def ends(self) -> tuple[int, int]:
        """How many keys of the sequence the queries of each chunk see."""
        ...

    def gather(self, heads: Tensor) -> Tensor:
        """[..., S of this rank, D] -> [..., S, D] of all ranks, in order."""
        ...


class SelfAttention(nn.Module):
    """Rows of the fused projection lie by key/value head: its query heads, its key, its value.

    A tensor rank thus holds whole heads: consecutive rows.
    """

    cosine: Tensor
    sine: Tensor
    mask: Tensor

    def __init__(self, model: Model, attention: Attention, *, value_embedding: bool) -> None:
        super().__init__()
        self.model = model
        self.kernel = attention
        self.pieces: Pieces | None = None
        self.group = model.heads // model.kv_heads
        kv_size = model.kv_heads * model.head_size
        self.query_key_value = nn.Linear(model.hidden, model.hidden + 2 * kv_size, bias=model.bias)
        self.output = nn.Linear(model.hidden, model.hidden, bias=model.bias)
        self.value_embedding = nn.Embedding(model.vocab, kv_size) if value_embedding else None
        self.fill_buffers()

    def fill_buffers(self) -> None:
        """Tables that follow from the model alone, on the device of the weights."""
        model, device = self.model, self.output.weight.device
        with torch.device(device):
            if model.position == "rotary":
                cosine, sine = rotary_tables(model.max_seq_len, model.head_size)
                self.register_buffer("cosine", cosine, persistent=False)
                self.register_buffer("sine", sine, persistent=False)
            if self.kernel == "explicit":
                mask = torch.full((model.max_seq_len, model.max_seq_len), float("-inf")).triu(1)
                self.register_buffer("mask", mask, persistent=False)

    def forward(self, hidden: Tensor, tokens: Tensor | None) -> Tensor:
        model = self.model
        fused = self.query_key_value(hidden).unflatten(-1, (-1, self.group + 2, model.head_size))
        query = fused[..., : self.group, :].flatten(2, 3)
        key, value = fused[..., self.group, :], fused[..., self.group + 1, :]
        where = slice(query.shape[1]) if self.pieces is None else self.pieces.positions
        if self.value_embedding is not None:
            assert tokens is not None
            value = value + self.value_embedding(tokens).unflatten(-1, (-1, model.head_size))
        if model.qk_norm:
            query = F.rms_norm(query, (model.head_size,))
            key = F.rms_norm(key, (model.head_size,))
        if model.position == "rotary":
            query = rotate(query, self.cosine[where], self.sine[where])
            key = rotate(key, self.cosine[where], self.sine[where])
        query, key, value = query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
        if self.pieces is None:
            mixed = self.attend(query, key, value)
        else:
            key, value = self.pieces.gather(torch.stack((key, value))).unbind()
            chunks = zip(query.chunk(2, dim=2), self.pieces.ends, strict=True)
            mixed = torch.cat(
                [self.attend(chunk, key[:, :, :end], value[:, :, :end]) for chunk, end in chunks],
                dim=2,
            )
        out: Tensor = self.output(mixed.transpose(1, 2).flatten(2, 3))
        return out

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """[B, N, Q, D] x [B, K, S, D] -> [B, N, Q, D], causal; the Q queries stand at the end."""
        queries, seq = query.shape[2], key.shape[2]
        if self.kernel == "sdpa":
            seen = None
            if queries < seq:
                seen = torch.ones(queries, seq, dtype=torch.bool, device=query.device)
                seen = seen.tril(seq - queries)
            return F.scaled_dot_product_attention(
                query,
                key,
                value,
                attn_mask=seen,
                is_causal=seen is None,
                enable_gqa=self.model.kv_heads < self.model.heads,
            )
        if self.model.kv_heads < self.model.heads:
            key = key.repeat_interleave(self.group, dim=1)
            value = value.repeat_interleave(self.group, dim=1)
        scores = (query * self.model.head_size**-0.5) @ key.transpose(-1, -2)
        return (
            torch.softmax(scores + self.mask[seq - queries : seq, :seq], dim=-1).to(value.dtype)
            @ value
        )


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
