"""The operator table: the only thing the physics knows of a model.

Symbols: N tokens of a micro-batch, S sequence length, H hidden, D head dimension, F ffn,
V vocabulary. A row is one operation with its shape, its parameters, what it keeps for the
backward pass and where it stands; everything else (time, memory, FLOP) is computed from rows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from twofold.errors import InputError
from twofold.model.architecture import Model

Kind = Literal["gemm", "attention", "vector"]
Segment = Literal["tower", "input", "block", "output"]
Axis = Literal["data", "context", "tensor", "expert", "expert_tensor"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """coefficient x tokens^tokens_power x seq^seq_power, tokens being those of a micro-batch."""

    coefficient: float
    tokens_power: float = 0.0
    seq_power: float = 0.0

    def at(self, tokens: float, seq: float) -> float:
        return float(self.coefficient * tokens**self.tokens_power * seq**self.seq_power)


ONE = Size(coefficient=1)
NOTHING = Size(coefficient=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """One row of the table.

    `op` names the measured curve or cost that prices it. A `gemm` is [m, k] x [k, n], `batch`
    times; `attention` is causal, m queries on n keys with k channels; a `vector` operation
    touches m rows of n elements. The row occurs in layers `first_layer` to `first_layer +
    repeat - 1` of the chain: 0 is the input, 1..L the blocks, L + 1 the output; rows stand in
    order of execution.

    `parameters` and `tensors` count one occurrence; a tied head has none of its own.
    Kept for the backward pass, by recompute level: `saved_elements` in the compute precision
    and `saved_bytes` whose type does not follow it. `working_elements` live only while the row
    runs. `boundary` is what a cut after this row would send, in elements. `divided_by` names
    the dimension that a parallel axis divides. `routed_fraction` of the tokens pass through.

    A gemm divided by "tensor" in n takes the whole input and gives a slice; divided in k it
    takes a slice and its result is summed over the tensor ranks. Rows of experts have the
    number of experts as `batch` and the mean tokens of one as `m`; "expert" divides their batch
    and "expert_tensor" their n or k. Attention is over all pairs where not `causal`, over the
    last `window` keys where it has one, and `kv_elements` are its keys and values, which a
    context-parallel rank needs from all others.
    """

    name: str
    kind: Kind
    op: str
    segment: Segment
    m: Size
    n: Size
    k: Size = ONE
    batch: Size = ONE
    first_layer: int
    repeat: int
    parameters: int = 0
    tensors: int = 0
    saved_elements: dict[str, Size] = field(default_factory=dict)
    saved_bytes: dict[str, Size] = field(default_factory=dict)
    working_elements: Size = NOTHING
    boundary: Size = NOTHING
    divided_by: dict[Axis, str] = field(default_factory=dict)
    trainable: bool = True
    routed_fraction: float = 1.0
    causal: bool = True
    window: int | None = None
    kv_elements: Size = NOTHING


def operator_table(model: Model) -> tuple[Operator, ...]:
    """The rows of a decoder-only model, in order of execution. InputError for a user's network."""
    if model.entry is not None:
        raise InputError(
            f"the operations of the user's network '{model.entry}' are not known",
            at=f"model '{model.name}', entry",
            help="its time and memory can be measured, not predicted",
        )
    return (*_input_rows(model), *_attention_rows(model), *_mlp_rows(model), *_output_rows(model))


def num_parameters(model: Model) -> int:
    """Parameters of the whole model, embeddings included, tied ones once."""
    return sum(row.parameters * row.repeat for row in operator_table(model))


def forward_flop(row: Operator, tokens: float, seq: float) -> float:
    """Model FLOP of one occurrence, forward: matrix products and causal attention only.

    gemm: 2 m n k. Attention: two products over half of the m x n scores. Lookups, norms and
    activations are no model FLOP (Narayanan et al. 2021, appendix, with attention halved).
    """
    product = row.batch.at(tokens, seq) * row.m.at(tokens, seq) * row.n.at(tokens, seq)
    depth = row.k.at(tokens, seq) * row.routed_fraction
    return {"gemm": 2.0, "attention": 2.0, "vector": 0.0}[row.kind] * product * depth


def inference_flop_per_token(model: Model, seq_len: int) -> float:
    """Model FLOP per token of one forward pass over `seq_len` tokens."""
    rows = operator_table(model)
    return sum(forward_flop(row, seq_len, seq_len) * row.repeat for row in rows) / seq_len


def training_flop_per_token(model: Model, seq_len: int) -> float:
    """Model FLOP per token of forward and backward (twice the forward), without recompute."""
    return 3.0 * inference_flop_per_token(model, seq_len)


def _tokens(coefficient: float) -> Size:
    return Size(coefficient=coefficient, tokens_power=1)


def _fixed(number: int) -> Size:
    return Size(coefficient=number)


def _kept(size: Size) -> dict[str, Size]:
    """Kept without recompute, dropped when the whole block is recomputed."""
    return {"none": size, "full": NOTHING}


def _always(size: Size) -> dict[str, Size]:
    return {"none": size, "full": size}


class _Place(NamedTuple):
    """Where in the chain a row occurs."""

    segment: Segment
    first_layer: int
    repeat: int


def _input() -> _Place:
    return _Place("input", 0, 1)


def _blocks(model: Model) -> _Place:
    return _Place("block", 1, model.layers)


def _output(model: Model) -> _Place:
    return _Place("output", model.layers + 1, 1)


def _vector(
    name: str,
    op: str,
    width: int,
    place: _Place,
    *,
    parameters: int = 0,
    tensors: int = 0,
    saved_elements: dict[str, Size] | None = None,
    saved_bytes: dict[str, Size] | None = None,
    working_elements: Size = NOTHING,
) -> Operator:
    return Operator(
        name=name,
        kind="vector",
        op=op,
        segment=place.segment,
        m=_tokens(1),
        n=_fixed(width),
        first_layer=place.first_layer,
        repeat=place.repeat,
        parameters=parameters,
        tensors=tensors,
        saved_elements=saved_elements or {},
        saved_bytes=saved_bytes or {},
        working_elements=working_elements,
        boundary=_tokens(width),
        divided_by={"data": "m", "context": "m"},
    )


def _linear(
    name: str,
    inputs: int,
    outputs: int,
    place: _Place,
    *,
    bias: bool,
    tensor: str,
    shared: bool = False,
) -> Operator:
    """Keeps its input. `tensor` is the dimension that tensor parallelism divides."""
    keep = _kept if place.segment == "block" else _always
    return Operator(
        name=name,
        kind="gemm",
        op="linear_bias" if bias else "linear",
        segment=place.segment,
        m=_tokens(1),
        n=_fixed(outputs),
        k=_fixed(inputs),
        first_layer=place.first_layer,
        repeat=place.repeat,
        parameters=0 if shared else inputs * outputs + (outputs if bias else 0),
        tensors=0 if shared else 1 + bias,
        saved_elements=keep(_tokens(inputs)),
        boundary=_tokens(outputs),
        divided_by={"data": "m", "context": "m", "tensor": tensor},
    )


def _norm(name: str, model: Model, place: _Place, *, entry: bool = False) -> Operator:
    """Keeps its fp32 input and one or two fp32 statistics a row; an RMS norm, which the
    framework composes, its normalised input as well. The `entry` of a block keeps its input,
    the residual stream, even where the block is recomputed from it."""
    layernorm = model.norm == "layernorm"
    tensors = 2 if layernorm and model.bias else 1
    kept = _tokens(4 * model.hidden + 8 if layernorm else 8 * model.hidden + 4)
    saved = (_kept if place.segment == "block" else _always)(kept)
    return _vector(
        name,
        model.norm,
        model.hidden,
        place,
        parameters=tensors * model.hidden,
        tensors=tensors,
        saved_bytes=saved | {"full": _tokens(4 * model.hidden)} if entry else saved,
    )


def _input_rows(model: Model) -> list[Operator]:
    hidden, place = model.hidden, _input()
    table = model.vocab * hidden
    rows = [_vector("embedding", "embedding", hidden, place, parameters=table, tensors=1)]
    if model.position == "learned":
        table = model.max_seq_len * hidden
        rows.append(_vector("positions", "add", hidden, place, parameters=table, tensors=1))
    return rows


def _attention_rows(model: Model) -> list[Operator]:
    hidden, place = model.hidden, _blocks(model)
    kv_size = model.kv_heads * model.head_dim
    return [
        _norm("attention_norm", model, place, entry=True),
        _linear(
            "query_key_value", hidden, hidden + 2 * kv_size, place, bias=model.bias, tensor="n"
        ),
        *_head_rows(model, kv_size),
        Operator(
            name="attention",
            kind="attention",
            op="attention",
            segment=place.segment,
            m=Size(coefficient=1, seq_power=1),
            n=Size(coefficient=1, seq_power=1),
            k=_fixed(model.head_dim),
            batch=Size(coefficient=model.heads, tokens_power=1, seq_power=-1),
            first_layer=place.first_layer,
            repeat=place.repeat,
            saved_elements=_kept(_tokens(hidden + 2 * kv_size)),
            boundary=_tokens(hidden),
            divided_by={"data": "batch", "tensor": "batch", "context": "m"},
        ),
        _linear("attention_output", hidden, hidden, place, bias=model.bias, tensor="k"),
        _vector("attention_residual", "add", hidden, place),
    ]


def _head_rows(model: Model, kv_size: int) -> list[Operator]:
    """What happens to queries, keys and values before attention."""
    place, queries_keys = _blocks(model), model.hidden + kv_size
    rows = []
    if model.value_embeddings:
        first = model.layers - model.value_embeddings + 1
        rows.append(
            _vector(
                "value_embedding",
                "embedding",
                kv_size,
                _Place("block", first, model.value_embeddings),
                parameters=model.vocab * kv_size,
                tensors=1,
                saved_elements=_kept(_tokens(kv_size)),
            )
        )
    if model.qk_norm:
        kept = _kept(_tokens(4 * (queries_keys + model.heads + model.kv_heads)))
        rows.append(
            _vector("query_key_norm", "head_rmsnorm", queries_keys, place, saved_bytes=kept)
        )
    if model.position == "rotary":
        rows.append(_vector("rotary", "rotary", queries_keys, place))
    return rows


def _mlp_rows(model: Model) -> list[Operator]:
    hidden, place = model.hidden, _blocks(model)
    widening = 2 * model.ffn if model.activation == "swiglu" else model.ffn
    return [
        _norm("mlp_norm", model, place),
        _linear("mlp_up", hidden, widening, place, bias=model.bias, tensor="n"),
        _vector(
            "activation",
            model.activation,
            model.ffn,
            place,
            saved_elements=_kept(_tokens(widening)),
            working_elements=_tokens(2 * model.ffn),
        ),
        _linear("mlp_down", model.ffn, hidden, place, bias=model.bias, tensor="k"),
        _vector("mlp_residual", "add", hidden, place),
    ]


def _output_rows(model: Model) -> list[Operator]:
    hidden, vocab, place = model.hidden, model.vocab, _output(model)
    shared = model.tied_embeddings
    rows = [
        _norm("final_norm", model, place),
        _linear("head", hidden, vocab, place, bias=False, tensor="n", shared=shared),
    ]
    if model.logit_softcap is not None:
        kept = _always(_tokens(vocab))
        rows.append(_vector("softcap", "softcap", vocab, place, saved_elements=kept))
    kept = _always(_tokens(4 * vocab))
    rows.append(
        _vector(
            "cross_entropy",
            "cross_entropy",
            vocab,
            place,
            saved_bytes=kept,
            working_elements=_tokens(2 * vocab),
        )
    )
    return rows
