"""What happens once a step: tokens are gathered, gradients accumulated and clipped, and
parameters updated by the optimizer's kernels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from twofold.runtime.probe.timing import Bench, Row, conditions, time_call, timing_fields
from twofold.runtime.train.data import Batches

_TENSORS = 12

UPDATES = (
    "adamw_loop",
    "adamw_foreach",
    "adamw_fused",
    "muon_update",
    "gradient_clip",
    "accumulate",
)


def probe_update(bench: Bench, update: str, elements: int, *, threads: int) -> list[Row]:
    """One update over twelve tensors of `elements` each; the time is for one tensor."""
    columns = 128 if elements >= 128 * 128 else 1
    parameters = [
        nn.Parameter(torch.randn(elements // columns, columns, device=bench.device))
        for _ in range(_TENSORS)
    ]
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    with conditions("fp32", threads):
        timing = time_call(bench, _call(update, parameters))
    return [
        {
            "kind": "op",
            "op": update,
            "precision": "fp32",
            "threads": threads,
            "elements": elements,
            "forward_s": timing.median_s / _TENSORS,
            "training_s": None,
            **timing_fields(timing),
        }
    ]


def probe_batch(bench: Bench, elements: int, *, threads: int) -> list[Row]:
    """Gathering a batch of so many tokens, in sequences of 128, from a text in memory."""
    seq = 128
    text = np.zeros(2**20, dtype=np.uint8)
    batches = Batches(text, seq, seed=0)
    with conditions("fp32", threads):
        timing = time_call(bench, lambda: batches.batch(0, elements // seq).to(bench.device))
    return [
        {
            "kind": "op",
            "op": "batch",
            "precision": "fp32",
            "threads": threads,
            "elements": elements,
            "forward_s": timing.median_s,
            "training_s": None,
            **timing_fields(timing),
        }
    ]


def _call(update: str, parameters: list[nn.Parameter]) -> Callable[[], object]:
    gradients = [p.grad for p in parameters if p.grad is not None]
    if update == "gradient_clip":
        return lambda: nn.utils.clip_grad_norm_(parameters, 1.0)
    if update == "accumulate":
        return lambda: [gradient.add_(gradient, alpha=1e-9) for gradient in gradients]
    if update == "muon_update":
        buffers = [torch.zeros_like(gradient) for gradient in gradients]
        return lambda: _muon_without_orthogonalising(parameters, gradients, buffers)
    kernel = update.removeprefix("adamw_")
    optimizer = torch.optim.AdamW(
        parameters, lr=1e-4, foreach=kernel == "foreach", fused=kernel == "fused"
    )
    return optimizer.step


@torch.no_grad()
def _muon_without_orthogonalising(
    parameters: list[nn.Parameter], gradients: list[Tensor], buffers: list[Tensor]
) -> None:
    """The element-wise part of the runtime's Muon, in its order."""
    directions = []
    for gradient, buffer in zip(gradients, buffers, strict=True):
        buffer.lerp_(gradient, 0.05)
        directions.append(gradient.lerp(buffer, 0.95))
    for parameter, update in zip(parameters, torch.stack(directions), strict=True):
        parameter.mul_(1 - 1e-6)
        parameter.add_(update, alpha=-1e-6)
