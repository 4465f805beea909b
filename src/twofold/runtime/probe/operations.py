"""Everything in a training step that is no matrix product, forward and backward, by size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from twofold.runtime.probe.timing import Bench, Row, conditions, time_call, timing_fields
from twofold.runtime.train.network.attention import rotary_tables, rotate

_WIDTH = 256
_HEAD_DIM = 64
_CALL_ELEMENTS = 2**23
_MOST_CALLS = 8

Step = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One kind of vector operation as the runtime's network issues it.

    Its input is [rows, width] in fp32, or under bf16 in bf16 where `after_product` says that a
    matrix product made it. `make(rows, device)` gives the step and the parameters it owns.
    `width` is also how many elements a row counts.
    """

    name: str
    width: int
    after_product: bool
    make: Callable[[int, torch.device], tuple[Step, list[Tensor]]]
    input_width: int | None = None


def probe_operation(
    bench: Bench, operation: Operation, elements: int, *, precision: str, threads: int
) -> list[Row]:
    """Several calls on different inputs, so that caches are as cold as between layers.

    Times are for one call: forward with what backward needs kept, and forward plus backward.
    """
    rows = max(1, elements // operation.width)
    elements = rows * operation.width
    half = precision == "bf16" and operation.after_product
    width = operation.input_width or operation.width
    calls = int(min(_MOST_CALLS, max(2, _CALL_ELEMENTS // elements)))
    inputs = [
        torch.randn(rows, width, device=bench.device)
        .to(torch.bfloat16 if half else torch.float32)
        .requires_grad_()
        for _ in range(calls)
    ]
    step, parameters = operation.make(rows, bench.device)

    def forward() -> list[Tensor]:
        with torch.autocast(bench.device.type, torch.bfloat16, enabled=precision == "bf16"):
            return [step(source) for source in inputs]

    gradients = [torch.ones_like(out) for out in forward()[:1]] * calls

    def training() -> None:
        torch.autograd.backward(forward(), gradients)
        for leaf in (*inputs, *parameters):
            leaf.grad = None

    with conditions(precision, threads):
        forward_timing = time_call(bench, forward)
        training_timing = time_call(bench, training)
    return [
        {
            "kind": "op",
            "op": operation.name,
            "precision": precision,
            "threads": threads,
            "elements": elements,
            "forward_s": forward_timing.median_s / calls,
            "training_s": training_timing.median_s / calls,
            **timing_fields(training_timing),
        }
    ]


def _layernorm(rows: int, device: torch.device) -> tuple[Step, list[Tensor]]:
    weight = torch.ones(_WIDTH, device=device, requires_grad=True)
    bias = torch.zeros(_WIDTH, device=device, requires_grad=True)
    return lambda x: _as_product_input(F.layer_norm(x, (_WIDTH,), weight, bias)), [weight, bias]


def _rmsnorm(rows: int, device: torch.device) -> tuple[Step, list[Tensor]]:
    weight = torch.ones(_WIDTH, device=device, requires_grad=True)
    return lambda x: _as_product_input(F.rms_norm(x, (_WIDTH,), weight)), [weight]


def _as_product_input(x: Tensor) -> Tensor:
    """Under autocast the product that follows a norm casts its fp32 output, and backward casts
    the gradient: both belong to the price of the norm."""
    device = x.device.type
    return x.to(torch.bfloat16) if torch.is_autocast_enabled(device) else x


def _head_rmsnorm(rows: int, device: torch.device) -> tuple[Step, list[Tensor]]:
    return lambda x: F.rms_norm(x, (_HEAD_DIM,)), []


def _rotary(rows: int, device: torch.device) -> tuple[Step, list[Tensor]]:
    seq = min(rows, 256)
    cosine, sine = (table.to(device) for table in rotary_tables(seq, _HEAD_DIM))
    heads = _WIDTH // _HEAD_DIM
    return lambda x: rotate(x.view(rows // seq, seq, heads, _HEAD_DIM), cosine, sine), []


def _add(rows: int, device: torch.device) -> tuple[Step, list[Tensor]]:
    """x + branch(x): backward adds the two gradients; under bf16 the branch is bf16."""

    def step(x: Tensor) -> Tensor:
        device_type = x.device.type
        branch = x.to(torch.bfloat16) if torch.is_autocast_enabled(device_type) else x.view_as(x)
        return x + branch

    return step, []


def _bias(rows: int, device: torch.device) -> tuple[Step, list[Tensor]]:
    """What a bias adds to a product: one pass over its result, and in backward a sum over rows."""
    bias = torch.zeros(_WIDTH, device=device, requires_grad=True)
    return lambda x: x.detach() + bias.to(x.dtype), [bias]


def _gelu(rows: int, device: torch.device) -> tuple[Step, list[Tensor]]:
    return F.gelu, []


def _relu2(rows: int, device: torch.device) -> tuple[Step, list[Tensor]]:
    return lambda x: F.relu(x).square(), []


def _swiglu(rows: int, device: torch.device) -> tuple[Step, list[Tensor]]:
    def step(x: Tensor) -> Tensor:
        gate, value = x.chunk(2, dim=-1)
        return F.silu(gate) * value

    return step, []


def _softcap(rows: int, device: torch.device) -> tuple[Step, list[Tensor]]:
    return lambda x: 15.0 * torch.tanh(x / 15.0), []


def _cross_entropy(rows: int, device: torch.device) -> tuple[Step, list[Tensor]]:
    targets = torch.randint(0, _WIDTH, (rows,), device=device)
    return lambda x: F.cross_entropy(x.float(), targets), []


def _embedding(rows: int, device: torch.device) -> tuple[Step, list[Tensor]]:
    """Look-up in a table of 256 rows and its dense gradient; the input itself is unused."""
    tokens = torch.randint(0, _WIDTH, (rows,), device=device)
    table = torch.randn(_WIDTH, _WIDTH, device=device, requires_grad=True)
    return lambda x: F.embedding(tokens, table), [table]


OPERATIONS: tuple[Operation, ...] = (
    Operation(name="layernorm", width=_WIDTH, after_product=False, make=_layernorm),
    Operation(name="rmsnorm", width=_WIDTH, after_product=False, make=_rmsnorm),
    Operation(name="head_rmsnorm", width=_HEAD_DIM, after_product=True, make=_head_rmsnorm),
    Operation(name="rotary", width=_WIDTH, after_product=True, make=_rotary),
    Operation(name="bias", width=_WIDTH, after_product=True, make=_bias),
    Operation(name="gelu", width=4 * _WIDTH, after_product=True, make=_gelu),
    Operation(name="relu2", width=4 * _WIDTH, after_product=True, make=_relu2),
    Operation(
        name="swiglu", width=_WIDTH, input_width=2 * _WIDTH, after_product=True, make=_swiglu
    ),
    Operation(name="add", width=_WIDTH, after_product=False, make=_add),
    Operation(name="softcap", width=_WIDTH, after_product=True, make=_softcap),
    Operation(name="cross_entropy", width=_WIDTH, after_product=True, make=_cross_entropy),
    Operation(name="embedding", width=_WIDTH, after_product=False, make=_embedding),
)
