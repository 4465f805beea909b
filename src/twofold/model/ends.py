"""The rows at both ends of the chain: embeddings; final norm, head and loss."""

from __future__ import annotations

from twofold.model.architecture import Model
from twofold.model.rows import (
    Place,
    always,
    input_place,
    linear,
    norm,
    output_place,
    sequences,
    tokens,
    vector,
)
from twofold.model.table import Operator


def input_rows(model: Model) -> list[Operator]:
    hidden, place = model.hidden, input_place()
    table = model.vocab * hidden
    rows = [vector("embedding", "embedding", hidden, place, parameters=table, tensors=1)]
    if model.position == "learned":
        table = model.max_seq_len * hidden
        rows.append(vector("positions", "add", hidden, place, parameters=table, tensors=1))
    if model.token_types:
        table = model.token_types * hidden
        rows.append(vector("token_types", "add", hidden, place, parameters=table, tensors=1))
    if model.embedding_norm:
        rows.append(norm("embedding_norm", model.norm, hidden, place, bias=model.bias))
    return rows


def output_rows(model: Model) -> list[Operator]:
    hidden, vocab, place = model.hidden, model.vocab, output_place(model)
    rows = []
    if model.norm_place != "after":
        rows.append(norm("final_norm", model.norm, hidden, place, bias=model.bias))
    if model.pooler:
        rows += _pooler_rows(model, place)
    if model.masked_head:
        rows += _transform_rows(model, place)
    shared = model.tied_embeddings
    rows.append(linear("head", hidden, vocab, place, bias=False, tensor="n", shared=shared))
    if model.masked_head:
        rows.append(
            vector("head_bias", "add", vocab, place, split=True, parameters=vocab, tensors=1)
        )
    if model.logit_softcap is not None:
        kept = always(tokens(vocab))
        rows.append(vector("softcap", "softcap", vocab, place, split=True, saved_elements=kept))
    rows.append(
        vector(
            "cross_entropy",
            "cross_entropy",
            vocab,
            place,
            split=True,
            saved_bytes=always(tokens(4 * vocab)),
            working_elements=tokens(2 * vocab),
        )
    )
    return rows


def _pooler_rows(model: Model, place: Place) -> list[Operator]:
    """BERT's, on the first token of a sequence; in training it feeds next-sentence prediction."""
    hidden, one = model.hidden, sequences(1)
    rows = [linear("pooler", hidden, hidden, place, bias=True, tensor=None, m=one)]
    if model.masked_head:
        rows.append(linear("sentence_head", hidden, 2, place, bias=True, tensor=None, m=one))
    return rows


def _transform_rows(model: Model, place: Place) -> list[Operator]:
    """Before the head of masked-language modelling (Devlin et al. 2018, as released)."""
    hidden = model.hidden
    return [
        linear("head_transform", hidden, hidden, place, bias=True, tensor=None),
        vector(
            "head_activation",
            model.activation,
            hidden,
            place,
            saved_elements=always(tokens(hidden)),
        ),
        norm("head_norm", model.norm, hidden, place, bias=model.bias),
    ]
