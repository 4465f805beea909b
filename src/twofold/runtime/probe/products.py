"""Matrix products: chains of linear layers as training runs them, and the roof of large ones."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from twofold.runtime.probe.timing import (
    DTYPES,
    Bench,
    Row,
    conditions,
    time_call,
    timing_fields,
)
from twofold.runtime.train.optimizers import orthogonalise

LinearShape = tuple[int, int, int]
"""(rows, inputs, outputs)."""

_PAIRS = 3
"""Pairs of layers in a chain: enough that weights and activations are not all in the caches."""


def probe_linear(
    bench: Bench, shape: LinearShape, *, precision: str, threads: int, bias: bool
) -> list[Row]:
    """Layers inputs -> outputs -> inputs in a chain, forward alone and with backward.

    Times are for one pair of layers. Under bf16 the weights are cast on each use, as autocast
    does, and the activations stay in bf16.
    """
    rows, inputs, outputs = shape
    device, dtype = bench.device, DTYPES[precision]
    layers = [
        (_parameter(device, outputs, inputs), _parameter(device, outputs) if bias else None)
        if index % 2 == 0
        else (_parameter(device, inputs, outputs), _parameter(device, inputs) if bias else None)
        for index in range(2 * _PAIRS)
    ]
    source = torch.randn(rows, inputs, device=device, dtype=dtype, requires_grad=True)
    gradient = torch.randn(rows, inputs, device=device, dtype=dtype)
    leaves = [source, *(p for layer in layers for p in layer if p is not None)]

    def forward() -> Tensor:
        hidden = source
        for weight, offset in layers:
            hidden = F.linear(
                hidden, weight.to(dtype), None if offset is None else offset.to(dtype)
            )
        return hidden

    def training() -> None:
        forward().backward(gradient)
        for leaf in leaves:
            leaf.grad = None

    with conditions(precision, threads):
        forward_timing = time_call(bench, forward)
        training_timing = time_call(bench, training)
    return [
        {
            "kind": "linear",
            "precision": precision,
            "threads": threads,
            "rows": rows,
            "inputs": inputs,
            "outputs": outputs,
            "bias": bias,
            "forward_s": forward_timing.median_s / _PAIRS,
            "training_s": training_timing.median_s / _PAIRS,
            **timing_fields(training_timing),
        }
    ]


def probe_roof(bench: Bench, size: int, *, precision: str, threads: int) -> list[Row]:
    """The best rate of one square product: the roof that nothing measured may exceed."""
    dtype = DTYPES[precision]
    left = torch.randn(size, size, device=bench.device, dtype=dtype)
    right = torch.randn(size, size, device=bench.device, dtype=dtype)
    out = torch.empty_like(left)
    with conditions(precision, threads):
        timing = time_call(bench, _product(left, right, out))
    return [
        {
            "kind": "roof",
            "precision": precision,
            "threads": threads,
            "size": size,
            "time_s": timing.low_s,
            **timing_fields(timing),
        }
    ]


def probe_orthogonalise(
    bench: Bench, shape: tuple[int, int, int], *, precision: str, threads: int
) -> list[Row]:
    """Muon's Newton-Schulz iteration on [count, rows, columns], as the optimizer calls it."""
    matrices = torch.randn(*shape, device=bench.device)
    with conditions(precision, threads), torch.no_grad():
        timing = time_call(bench, lambda: orthogonalise(matrices, 5, DTYPES[precision]))
    count, rows, columns = shape
    return [
        {
            "kind": "orthogonalise",
            "precision": precision,
            "threads": threads,
            "count": count,
            "rows": rows,
            "columns": columns,
            "time_s": timing.median_s,
            **timing_fields(timing),
        }
    ]


def _product(left: Tensor, right: Tensor, out: Tensor) -> Callable[[], object]:
    return lambda: torch.mm(left, right, out=out)


def _parameter(device: torch.device, *shape: int) -> Tensor:
    return (torch.randn(*shape, device=device) * 0.05).requires_grad_()
