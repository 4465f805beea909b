"""The operator table of a model, and the counts that follow from it: parameters and FLOP."""

from __future__ import annotations

from twofold.errors import InputError
from twofold.model.architecture import Model
from twofold.model.attention import attention_rows
from twofold.model.ends import input_rows, output_rows
from twofold.model.feedforward import feedforward_rows
from twofold.model.table import Operator, forward_flop
from twofold.model.towers import tower_rows

_TABLES = ("embedding", "positions", "token_types", "head", "head_bias")
"""What published counts "without embeddings" leave out: Kaplan et al. 2020 and the Qwen cards."""


def operator_table(model: Model) -> tuple[Operator, ...]:
    """The rows of a model, in order of execution. InputError for a user's network."""
    if model.entry is not None:
        raise InputError(
            f"the operations of the user's network '{model.entry}' are not known",
            at=f"model '{model.name}', entry",
            help="its time and memory can be measured, not predicted",
        )
    if model.operators:
        return model.operators
    return (
        *tower_rows(model),
        *input_rows(model),
        *attention_rows(model),
        *feedforward_rows(model),
        *output_rows(model),
    )


def num_parameters(model: Model) -> int:
    """Parameters of the whole model, embeddings included, tied ones once."""
    return sum(row.parameters * row.repeat for row in operator_table(model))


def active_parameters(model: Model) -> int:
    """Parameters that one token passes: of the experts `top_k` of `count`, all else whole.

    Embedding tables count whole, as for Mixtral (12.9 billion), Qwen3 and DeepSeek-V3; the
    gpt-oss card leaves out the input's (3.61 of 4.19 billion): subtract vocab x hidden for it.
    """
    total = 0.0
    for row in operator_table(model):
        share = 1.0
        if "expert" in row.divided_by:
            share = row.m.coefficient if row.m.tokens_power == 1 else 1.0
        total += share * row.parameters * row.repeat
    return round(total)


def non_embedding_parameters(model: Model) -> int:
    """Parameters without token, position and type tables and the head over the vocabulary."""
    return sum(
        row.parameters * row.repeat for row in operator_table(model) if row.name not in _TABLES
    )


def inference_flop_per_token(model: Model, seq_len: int) -> float:
    """Model FLOP per token of one forward pass over `seq_len` tokens."""
    rows = operator_table(model)
    return sum(forward_flop(row, seq_len, seq_len) * row.repeat for row in rows) / seq_len


def training_flop_per_token(model: Model, seq_len: int) -> float:
    """Model FLOP per token of forward and backward (twice the forward), without recompute."""
    return 3.0 * inference_flop_per_token(model, seq_len)
