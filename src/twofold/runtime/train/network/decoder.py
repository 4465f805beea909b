"""The network that a `Model` describes: GPT-2's block and the modern one, in one short file.

Shapes: B batch, S sequence, H hidden, N heads, K key/value heads, D head dimension, V vocabulary.
"""

from __future__ import annotations

import copy
import importlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from twofold.errors import InputError
from twofold.model import Model, embedded_lack
from twofold.plan import Attention, Recompute
from twofold.runtime.train.network.attention import Pieces, SelfAttention
from twofold.runtime.train.network.experts import make_feedforward


def build_network(
    model: Model, *, attention: Attention, recompute: Recompute, part: Part | None = None
) -> nn.Module:
    """Tokens [B, S] -> logits [B, S, V], or a part of the way.

    A user's `module:function` is called as it is, and cannot be taken apart.
    """
    if model.entry is None:
        lack = embedded_lack(model)
        if lack is not None:
            raise InputError(
                f"the embedded runtime cannot build this model: {lack}",
                at=f"model '{model.name}'",
                help="plan it for another engine, or name your own network as `entry`",
            )
        return Decoder(model, attention=attention, recompute=recompute, part=part)
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What of the decoder a pipeline stage, or a rank with several of them, holds."""

    blocks: Sequence[int]
    is_first: bool = True
    is_last: bool = True


class Decoder(nn.Module):
    """The decoder or one part of it; parameters are named as in the whole."""

    def __init__(
        self, model: Model, *, attention: Attention, recompute: Recompute, part: Part | None = None
    ) -> None:
        super().__init__()
        part = Part(blocks=range(model.layers)) if part is None else part
        self.model = model
        self.recompute = recompute
        self.is_first = part.is_first
        self.pieces: Pieces | None = None
        has_table = part.is_first or (part.is_last and model.tied_embeddings)
        self.embedding = nn.Embedding(model.vocab, model.hidden) if has_table else None
        self.positions = (
            nn.Embedding(model.max_seq_len, model.hidden)
            if part.is_first and model.position == "learned"
            else None
        )
        self.blocks = nn.ModuleDict(
            {
                str(index): Block(
                    model,
                    attention,
                    layer=index,
                )
                for index in part.blocks
            }
        )
        self.norm = make_norm(model) if part.is_last else None
        self.head = nn.Linear(model.hidden, model.vocab, bias=False) if part.is_last else None
        self.tie()

    def tie(self) -> None:
        """One table for embedding and head; to be repeated where parameters were replaced."""
        if self.model.tied_embeddings and self.head is not None and self.embedding is not None:
            self.head.weight = self.embedding.weight

    def view(self, part: Part) -> Decoder:
        """Some of these layers as a network that shares their parameters."""
        view = copy.copy(self)
        view._modules = dict(self._modules)
        view.is_first = part.is_first
        view.blocks = nn.ModuleDict({str(index): self.blocks[str(index)] for index in part.blocks})
        if not part.is_first:
            view.embedding, view.positions = None, None
        if not part.is_last:
            view.norm, view.head = None, None
        return view

    def forward(self, hidden: Tensor, tokens: Tensor | None = None) -> Tensor:
        """Tokens [B, S] (the first part) or hidden states [B, S, H] -> hidden states or logits.

        A part that is not the first is given the tokens beside the hidden states.
        """
        if self.is_first and self.embedding is not None:
            tokens = hidden
            hidden = self.embedding(tokens)
            if self.positions is not None:
                where = slice(tokens.shape[1]) if self.pieces is None else self.pieces.positions
                hidden = hidden + self.positions.weight[where]
        for block in self.blocks.values():
            if self.recompute == "full" and self.training:
                hidden = checkpoint(block, hidden, tokens, use_reentrant=False)
            else:
                hidden = block(hidden, tokens)
        if self.head is None or self.norm is None:
            return hidden
        logits: Tensor = self.head(self.norm(hidden))
        if self.model.logit_softcap is not None:
            cap = self.model.logit_softcap
            logits = cap * torch.tanh(logits / cap)
        return logits


class Block(nn.Module):
    def __init__(self, model: Model, attention: Attention, *, layer: int) -> None:
        super().__init__()
        value_embedding = layer >= model.layers - model.value_embeddings
        self.attention_norm = make_norm(model)
        self.attention = SelfAttention(model, attention, value_embedding=value_embedding)
        self.mlp_norm = make_norm(model)
        self.mlp = make_feedforward(model, layer)

    def forward(self, hidden: Tensor, tokens: Tensor | None) -> Tensor:
        hidden = hidden + self.attention(self.attention_norm(hidden), tokens)
        mlp: Tensor = self.mlp(self.mlp_norm(hidden))
        return hidden + mlp


def make_norm(model: Model) -> nn.Module:
    if model.norm == "layernorm":
        return nn.LayerNorm(model.hidden, bias=model.bias)
    return nn.RMSNorm(model.hidden)
