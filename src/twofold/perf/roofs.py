"""Roofs: what a device can do at most, and where the operators of a plan stand beneath them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from twofold.fleet import Fleet
from twofold.model import Model, Operator, operator_table
from twofold.perf.efficiency import require_curves
from twofold.perf.layers import layer_key, price_layers
from twofold.perf.ops import (
    ELEMENT_BYTES,
    backward_bytes,
    expand,
    forward_bytes,
    forward_flop,
)
from twofold.plan import Plan
from twofold.workload import Train

Array = NDArray[np.float64]


def roofline_s(
    flop: float | Array, size_bytes: float | Array, flop_per_s: float, bytes_per_s: float
) -> Array:
    """T = max(flop / flop_per_s, bytes / bytes_per_s) (Williams, Waterman and Patterson 2009).

    The least time with perfect overlap. The bytes count every operand once from main memory;
    what stays in caches between operations can beat that side, so on a CPU only FLOP bind.
    """
    return np.maximum(np.divide(flop, flop_per_s), np.divide(size_bytes, bytes_per_s))


def roof_flop_per_s(fleet: Fleet) -> dict[str, float]:
    """By precision, the best rate that the fleet's first pool was seen to reach or is sold at."""
    accelerator = fleet.pools[0].node.accelerator
    return {precision: figure.value for precision, figure in accelerator.flop_per_s.items()}


def roof_bytes_per_s(fleet: Fleet) -> float | None:
    """Memory bandwidth of the fleet's first pool; None where it is not known."""
    figure = fleet.pools[0].node.accelerator.memory.bandwidth_bytes_per_s
    return None if figure is None else figure.value


def roofline_rows(model: Model, workload: Train, fleet: Fleet, plan: Plan) -> list[dict[str, Any]]:
    """Per class of operators, what one training step does in it and is predicted to take.

    Keys: name, flop (model FLOP, forward and backward), bytes (least traffic), time_s. Classes
    stand in order of first execution; the optimizer is no operator and is left out.
    """
    rows = operator_table(model)
    curves = require_curves(fleet.pool(plan.pool).node.accelerator)
    prices = price_layers(rows, curves, [layer_key(plan)], workload.seq_len)
    micros = workload.recipe.global_batch / plan.micro_batch
    tokens = np.array([float(plan.micro_batch * workload.seq_len)])
    columns = expand(rows, tokens, workload.seq_len)
    width = np.array([float(ELEMENT_BYTES[plan.precision])])
    times = columns.repeat * micros
    flop = 3.0 * forward_flop(columns)[:, 0] * times
    size_bytes = (forward_bytes(columns, width) + backward_bytes(columns, width))[:, 0] * times
    time_s = prices.row_s[:, 0] * micros
    classes: dict[str, dict[str, Any]] = {}
    for index, row in enumerate(rows):
        entry = classes.setdefault(
            _class_name(row), {"name": _class_name(row), "flop": 0.0, "bytes": 0.0, "time_s": 0.0}
        )
        entry["flop"] += float(flop[index])
        entry["bytes"] += float(size_bytes[index])
        entry["time_s"] += float(time_s[index])
    return list(classes.values())


def _class_name(row: Operator) -> str:
    if row.kind == "gemm":
        return "linear layers" if row.segment == "block" else "head"
    return {
        "attention": "attention",
        "layernorm": "norms",
        "rmsnorm": "norms",
        "head_rmsnorm": "norms",
        "gelu": "activation",
        "relu2": "activation",
        "swiglu": "activation",
        "rotary": "rotary",
        "add": "residual",
        "embedding": "embeddings",
        "softcap": "loss",
        "cross_entropy": "loss",
    }[row.op]
