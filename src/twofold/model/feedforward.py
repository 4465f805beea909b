"""The rows of the feed-forward network: dense, and as a mixture of experts.

Symbols: H hidden, F ffn, E experts, K of them for each token.
"""

from __future__ import annotations

from dataclasses import replace

from twofold.model.architecture import Experts, Model
from twofold.model.rows import (
    Place,
    blocks,
    chosen,
    divided,
    expert_linear,
    fixed,
    kept,
    linear,
    norm,
    tokens,
    vector,
)
from twofold.model.table import Operator


def feedforward_rows(model: Model) -> list[Operator]:
    """From the residual stream back to it."""
    place = blocks(model)
    dense = model.layers - model.expert_layers
    rows = []
    if model.norm_place != "after":
        rows.append(norm("mlp_norm", model.norm, model.hidden, place, bias=model.bias))
    if dense:
        rows += _dense_rows(model, Place("block", 1, dense))
    if model.experts is not None:
        rows += _expert_rows(model, model.experts, Place("block", dense + 1, model.expert_layers))
    if model.norm_place == "around":
        rows.append(norm("mlp_post_norm", model.norm, model.hidden, place, bias=model.bias))
    rows.append(vector("mlp_residual", "add", model.hidden, place))
    if model.norm_place == "after":
        rows.append(norm("mlp_norm", model.norm, model.hidden, place, bias=model.bias))
    return rows


def _dense_rows(model: Model, place: Place) -> list[Operator]:
    bias = chosen(model.mlp_bias, model.bias)
    return _gated_rows(model, ("mlp_up", "activation", "mlp_down"), model.ffn, place, bias=bias)


def _gated_rows(
    model: Model, names: tuple[str, str, str], width: int, place: Place, *, bias: bool
) -> list[Operator]:
    up, activation, down = names
    widening = 2 * width if model.gated else width
    return [
        linear(up, model.hidden, widening, place, bias=bias, tensor="n"),
        vector(
            activation,
            model.activation,
            width,
            place,
            split=True,
            saved_elements=kept(tokens(widening)),
            working_elements=tokens(2 * width),
        ),
        linear(down, width, model.hidden, place, bias=bias, tensor="k"),
    ]


def _expert_rows(model: Model, experts: Experts, place: Place) -> list[Operator]:
    """Router, dispatch, experts, combination (Shazeer et al. 2017; Fedus et al. 2021)."""
    hidden, width, count, top_k = model.hidden, experts.ffn, experts.count, experts.top_k
    widening = 2 * width if model.gated else width
    activation = vector(
        "expert_activation",
        model.activation,
        width,
        place,
        m=tokens(top_k / count),
        saved_elements=kept(tokens(top_k * widening)),
        working_elements=tokens(2 * top_k * width),
    )
    rows = [
        linear(
            "router",
            hidden,
            count,
            place,
            bias=experts.router_bias,
            tensor=None,
            op="router",
        ),
        vector("routing", "routing", count, place, saved_bytes=kept(tokens(4 * count))),
        vector("dispatch", "permute", top_k * hidden, place),
        expert_linear(
            "expert_up",
            hidden,
            widening,
            place,
            count=count,
            top_k=top_k,
            bias=experts.bias,
            inner="n",
        ),
        replace(
            activation,
            batch=fixed(count),
            divided_by=divided(expert="batch", expert_tensor="n"),
        ),
        expert_linear(
            "expert_down",
            width,
            hidden,
            place,
            count=count,
            top_k=top_k,
            bias=experts.bias,
            inner="k",
        ),
        vector(
            "combine",
            "permute",
            top_k * hidden,
            place,
            saved_elements=kept(tokens(top_k * hidden)),
        ),
    ]
    if experts.shared_ffn:
        names = ("shared_up", "shared_activation", "shared_down")
        rows += _gated_rows(model, names, experts.shared_ffn, place, bias=experts.bias)
    return rows
