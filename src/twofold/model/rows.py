"""The forms that rows take: a lookup or norm, a product, where in the chain it stands."""

from __future__ import annotations

from typing import NamedTuple

from twofold.model.architecture import Model, Norm
from twofold.model.table import NOTHING, Axis, Operator, Segment, Size


class Place(NamedTuple):
    """Where in the chain a row occurs."""

    segment: Segment
    first_layer: int
    repeat: int


def input_place() -> Place:
    return Place("input", 0, 1)


def blocks(model: Model) -> Place:
    return Place("block", 1, model.layers)


def output_place(model: Model) -> Place:
    return Place("output", model.layers + 1, 1)


def tokens(coefficient: float) -> Size:
    """So many for each token."""
    return Size(coefficient=coefficient, tokens_power=1)


def sequences(coefficient: float) -> Size:
    """So many for each sequence."""
    return Size(coefficient=coefficient, tokens_power=1, seq_power=-1)


def fixed(number: int) -> Size:
    return Size(coefficient=number)


def kept(size: Size) -> dict[str, Size]:
    """Kept without recompute, dropped when the whole block is recomputed."""
    return {"none": size, "full": NOTHING}


def always(size: Size) -> dict[str, Size]:
    return {"none": size, "full": size}


def divided(
    *, tensor: str | None = None, expert: str | None = None, expert_tensor: str | None = None
) -> dict[Axis, str]:
    """Which dimension each axis divides; tokens are divided over data and context ranks."""
    axes: dict[Axis, str | None] = {
        "data": "m",
        "context": "m",
        "tensor": tensor,
        "expert": expert,
        "expert_tensor": expert_tensor,
    }
    return {axis: dimension for axis, dimension in axes.items() if dimension is not None}


def chosen(own: bool | None, default: bool) -> bool:
    return default if own is None else own


def vector(
    name: str,
    op: str,
    width: int,
    place: Place,
    *,
    m: Size | None = None,
    split: bool = False,
    parameters: int = 0,
    tensors: int = 0,
    saved_elements: dict[str, Size] | None = None,
    saved_bytes: dict[str, Size] | None = None,
    working_elements: Size = NOTHING,
    trainable: bool = True,
) -> Operator:
    """`split`: it stands where tensor-parallel ranks hold a slice of the channels each."""
    m = tokens(1) if m is None else m
    return Operator(
        name=name,
        kind="vector",
        op=op,
        segment=place.segment,
        m=m,
        n=fixed(width),
        first_layer=place.first_layer,
        repeat=place.repeat,
        parameters=parameters,
        tensors=tensors,
        saved_elements=saved_elements or {},
        saved_bytes=saved_bytes or {},
        working_elements=working_elements,
        boundary=times(m, width),
        divided_by=divided(tensor="n" if split else None),
        trainable=trainable,
    )


def linear(
    name: str,
    inputs: int,
    outputs: int,
    place: Place,
    *,
    bias: bool,
    tensor: str | None,
    m: Size | None = None,
    op: str | None = None,
    shared: bool = False,
    keeps: bool = True,
    entry: bool = False,
    trainable: bool = True,
) -> Operator:
    """A product, which keeps its input, unless (`keeps`) another row keeps the same tensor.

    `tensor` is the dimension that tensor parallelism divides, None where every rank has the
    whole weight. The `entry` of a block keeps its input even where the block is recomputed.
    """
    m = tokens(1) if m is None else m
    keep = kept if place.segment in ("block", "tower") and not entry else always
    return Operator(
        name=name,
        kind="gemm",
        op=op or ("linear_bias" if bias else "linear"),
        segment=place.segment,
        m=m,
        n=fixed(outputs),
        k=fixed(inputs),
        first_layer=place.first_layer,
        repeat=place.repeat,
        parameters=0 if shared else inputs * outputs + (outputs if bias else 0),
        tensors=0 if shared else 1 + bias,
        saved_elements=keep(times(m, inputs)) if keeps else {},
        boundary=times(m, outputs),
        divided_by=divided(tensor=tensor),
        trainable=trainable,
    )


def norm(
    name: str,
    kind: Norm,
    width: int,
    place: Place,
    *,
    bias: bool,
    m: Size | None = None,
    entry: bool = False,
    trainable: bool = True,
) -> Operator:
    """Keeps its fp32 input and one or two fp32 statistics a row; an RMS norm, which the
    framework composes, its normalised input as well. The `entry` of a block keeps its input,
    the residual stream, even where the block is recomputed from it."""
    m = tokens(1) if m is None else m
    layernorm = kind == "layernorm"
    tensors = 2 if layernorm and bias else 1
    size = times(m, 4 * width + 8 if layernorm else 8 * width + 4)
    saved = (kept if place.segment in ("block", "tower") else always)(size)
    return vector(
        name,
        kind,
        width,
        place,
        m=m,
        parameters=tensors * width,
        tensors=tensors,
        saved_bytes=saved | {"full": times(m, 4 * width)} if entry else saved,
        trainable=trainable,
    )


def attention(
    name: str,
    place: Place,
    *,
    heads: int,
    channels: float,
    saved: Size,
    width: int,
    keys_and_values: Size,
    causal: bool,
    window: int | None = None,
    length: int | None = None,
    sinks: bool = False,
    biased: bool = False,
    trainable: bool = True,
) -> Operator:
    """Self-attention over the sequence, or over `length` positions that each sequence brings.
    `biased` scores (ALiBi) kept early fused kernels from skipping the masked half.

    `channels` are the mean of those of a key and of a value: one of the two products has the
    first, the other the second.
    """
    span = Size(coefficient=1, seq_power=1) if length is None else fixed(length)
    each = tokens(1) if length is None else sequences(length)
    return Operator(
        name=name,
        kind="attention",
        op="biased_attention" if biased else "attention",
        segment=place.segment,
        m=span,
        n=span,
        k=Size(coefficient=channels),
        batch=sequences(heads),
        first_layer=place.first_layer,
        repeat=place.repeat,
        parameters=heads if sinks else 0,
        tensors=int(sinks),
        saved_elements=kept(saved),
        boundary=times(each, width),
        divided_by={"data": "batch", "tensor": "batch", "context": "m"},
        causal=causal,
        window=window,
        kv_elements=keys_and_values,
        trainable=trainable,
    )


def times(size: Size, factor: float) -> Size:
    return Size(
        coefficient=size.coefficient * factor,
        tokens_power=size.tokens_power,
        seq_power=size.seq_power,
    )


def expert_linear(
    name: str,
    inputs: int,
    outputs: int,
    place: Place,
    *,
    count: int,
    top_k: int,
    bias: bool,
    inner: str,
) -> Operator:
    """The products of all experts, each on the mean of its tokens. `inner` is the dimension that
    tensor parallelism inside an expert divides."""
    return Operator(
        name=name,
        kind="gemm",
        op="linear_bias" if bias else "linear",
        segment=place.segment,
        m=tokens(top_k / count),
        n=fixed(outputs),
        k=fixed(inputs),
        batch=fixed(count),
        first_layer=place.first_layer,
        repeat=place.repeat,
        parameters=count * (inputs * outputs + (outputs if bias else 0)),
        tensors=count * (1 + bias),
        saved_elements=kept(tokens(top_k * inputs)),
        boundary=tokens(top_k * outputs),
        divided_by=divided(expert="batch", expert_tensor=inner),
    )
