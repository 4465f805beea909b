"""The operator table: the only thing the physics knows of a model.

Symbols: N tokens of a micro-batch, S sequence length, H hidden, D head dimension, F ffn,
V vocabulary. A row is one operation with its shape, its parameters, what it keeps for the
backward pass and where it stands; everything else (time, memory, FLOP) is computed from rows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from twofold.errors import InputError
from twofold.model.architecture import Model

Kind = Literal["gemm", "attention", "vector"]
Segment = Literal["input", "block", "output"]
Axis = Literal["data", "context", "tensor", "expert"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """coefficient x tokens^tokens_power x seq^seq_power, tokens being those of a micro-batch."""

    coefficient: float
    tokens_power: float = 0.0
    seq_power: float = 0.0

    def at(self, tokens: float, seq: float) -> float:
        """The number itself; works element-wise on numpy columns as well."""
        return self.coefficient * tokens**self.tokens_power * seq**self.seq_power


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


def _vector(
    name: str,
    op: str,
    width: int,
    *,
    segment: Segment,
    first_layer: int,
    repeat: int,
    parameters: int = 0,
    tensors: int = 0,
    saved_elements: dict[str, Size] | None = None,
    saved_bytes: dict[str, Size] | None = None,
) -> Operator:
    return Operator(
        name=name,
        kind="vector",
        op=op,
        segment=segment,
        m=_tokens(1),
        n=_fixed(width),
        first_layer=first_layer,
        repeat=repeat,
        parameters=parameters,
        tensors=tensors,
        saved_elements=saved_elements or {},
        saved_bytes=saved_bytes or {},
        boundary=_tokens(width),
        divided_by={"data": "m", "context": "m"},
    )


def _linear(
    name: str,
    model: Model,
    inputs: int,
    outputs: int,
    *,
    segment: Segment = "block",
    tensor: str,
    bias: bool | None = None,
    shared: bool = False,
) -> Operator:
    biased = model.bias if bias is None else bias
    block = segment == "block"
    return Operator(
        name=name,
        kind="gemm",
        op="linear_bias" if biased else "linear",
        segment=segment,
        m=_tokens(1),
        n=_fixed(outputs),
        k=_fixed(inputs),
        first_layer=1 if block else model.layers + 1,
        repeat=model.layers if block else 1,
        parameters=0 if shared else inputs * outputs + (outputs if biased else 0),
        tensors=0 if shared else 1 + biased,
        saved_elements=(_kept if block else _always)(_tokens(inputs)),
        boundary=_tokens(outputs),
        divided_by={"data": "m", "context": "m", "tensor": tensor},
    )


def _norm(name: str, model: Model, *, segment: Segment = "block", entry: bool = False) -> Operator:
    """Keeps its fp32 input and one or two fp32 statistics a row. The `entry` of a block keeps
    its input, the residual stream, even where the block is recomputed from it."""
    block = segment == "block"
    layernorm = model.norm == "layernorm"
    tensors = 2 if layernorm and model.bias else 1
    kept = _tokens(4 * model.hidden + (8 if layernorm else 4))
    return _vector(
        name,
        model.norm,
        model.hidden,
        segment=segment,
        first_layer=1 if block else model.layers + 1,
        repeat=model.layers if block else 1,
        parameters=tensors * model.hidden,
        tensors=tensors,
        saved_bytes=(
            {"none": kept, "full": _tokens(4 * model.hidden)}
            if entry
            else (_kept if block else _always)(kept)
        ),
    )


def _input_rows(model: Model) -> list[Operator]:
    rows = [
        _vector(
            "embedding",
            "embedding",
            model.hidden,
            segment="input",
            first_layer=0,
            repeat=1,
            parameters=model.vocab * model.hidden,
            tensors=1,
        )
    ]
    if model.position == "learned":
        rows.append(
            _vector(
                "positions",
                "add",
                model.hidden,
                segment="input",
                first_layer=0,
                repeat=1,
                parameters=model.max_seq_len * model.hidden,
                tensors=1,
            )
        )
    return rows


def _attention_rows(model: Model) -> list[Operator]:
    kv_size = model.kv_heads * model.head_dim
    rows = [
        _norm("attention_norm", model, entry=True),
        _linear(
            "query_key_value", model, model.hidden, model.hidden + 2 * kv_size, tensor="n"
        ),
    ]
    if model.value_embeddings:
        rows.append(
            _vector(
                "value_embedding",
                "embedding",
                kv_size,
                segment="block",
                first_layer=model.layers - model.value_embeddings + 1,
                repeat=model.value_embeddings,
                parameters=model.vocab * kv_size,
                tensors=1,
            )
        )
    per_layer = {"segment": "block", "first_layer": 1, "repeat": model.layers}
    queries_keys = model.hidden + kv_size
    if model.qk_norm:
        rows.append(
            _vector(
                "query_key_norm",
                "head_rmsnorm",
                queries_keys,
                saved_elements=_kept(_tokens(queries_keys)),
                saved_bytes=_kept(_tokens(4 * (model.heads + model.kv_heads))),
                **per_layer,
            )
        )
    if model.position == "rotary":
        rows.append(_vector("rotary", "rotary", queries_keys, **per_layer))
    rows.append(
        Operator(
            name="attention",
            kind="attention",
            op="attention",
            m=Size(coefficient=1, seq_power=1),
            n=Size(coefficient=1, seq_power=1),
            k=_fixed(model.head_dim),
            batch=Size(coefficient=model.heads, tokens_power=1, seq_power=-1),
            saved_elements=_kept(_tokens(model.hidden + 2 * kv_size)),
            boundary=_tokens(model.hidden),
            divided_by={"data": "batch", "tensor": "batch", "context": "m"},
            **per_layer,
        )
    )
    rows.append(_linear("attention_output", model, model.hidden, model.hidden, tensor="k"))
    rows.append(_vector("attention_residual", "add", model.hidden, **per_layer))
    return rows


def _mlp_rows(model: Model) -> list[Operator]:
    per_layer = {"segment": "block", "first_layer": 1, "repeat": model.layers}
    widening = 2 * model.ffn if model.activation == "swiglu" else model.ffn
    return [
        _norm("mlp_norm", model),
        _linear("mlp_up", model, model.hidden, widening, tensor="n"),
        _vector(
            "activation",
            model.activation,
            model.ffn,
            saved_elements=_kept(_tokens(widening)),
            **per_layer,
        ),
        _linear("mlp_down", model, model.ffn, model.hidden, tensor="k"),
        _vector("mlp_residual", "add", model.hidden, **per_layer),
    ]


def _output_rows(model: Model) -> list[Operator]:
    last = {"segment": "output", "first_layer": model.layers + 1, "repeat": 1}
    rows = [
        _norm("final_norm", model, segment="output"),
        _linear(
            "head",
            model,
            model.hidden,
            model.vocab,
            segment="output",
            tensor="n",
            bias=False,
            shared=model.tied_embeddings,
        ),
    ]
    if model.logit_softcap is not None:
        rows.append(
            _vector(
                "softcap",
                "softcap",
                model.vocab,
                saved_elements=_always(_tokens(model.vocab)),
                **last,
            )
        )
    rows.append(
        _vector(
            "cross_entropy",
            "cross_entropy",
            model.vocab,
            saved_bytes=_always(_tokens(4 * model.vocab)),
            **last,
        )
    )
    return rows
