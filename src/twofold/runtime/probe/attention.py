"""Causal self-attention from the fused projection to the mixed values, by kernel."""

from __future__ import annotations

import torch
from torch import Tensor

from twofold.model import Model
from twofold.plan import Attention
from twofold.runtime.probe.timing import (
    DTYPES,
    Bench,
    Row,
    conditions,
    time_call,
    timing_fields,
)
from twofold.runtime.train.network.attention import SelfAttention

AttentionShape = tuple[int, int, int, int]
"""(batch, heads, seq, head_dim)."""

_CALLS = 3


def probe_attention(
    bench: Bench, shape: AttentionShape, *, kernel: Attention, precision: str, threads: int
) -> list[Row]:
    """The runtime's own attention, split and merge of heads included, on several inputs.

    Times are for one call: forward with what backward needs kept, and forward plus backward.
    """
    batch, heads, seq, head_dim = shape
    width = heads * head_dim
    device, dtype = bench.device, DTYPES[precision]
    attend = SelfAttention(_shape_only(width, heads, seq), kernel, value_embedding=False)
    attend.to(device)
    sources = [
        torch.randn(batch, seq, 3 * width, device=device, dtype=dtype, requires_grad=True)
        for _ in range(_CALLS)
    ]
    gradient = torch.randn(batch, seq, width, device=device, dtype=dtype)

    def mix(source: Tensor) -> Tensor:
        query, key, value = (
            part.view(batch, seq, heads, head_dim).transpose(1, 2)
            for part in source.split(width, dim=-1)
        )
        return attend.attend(query, key, value).transpose(1, 2).reshape(batch, seq, width)

    def forward() -> list[Tensor]:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            return [mix(source) for source in sources]

    def training() -> None:
        torch.autograd.grad(forward(), sources, [gradient] * _CALLS)

    with conditions(precision, threads):
        forward_timing = time_call(bench, forward)
        training_timing = time_call(bench, training)
    return [
        {
            "kind": "attention",
            "kernel": kernel,
            "precision": precision,
            "threads": threads,
            "batch": batch,
            "heads": heads,
            "seq": seq,
            "head_dim": head_dim,
            "forward_s": forward_timing.median_s / _CALLS,
            "training_s": training_timing.median_s / _CALLS,
            **timing_fields(training_timing),
        }
    ]


def _shape_only(width: int, heads: int, seq: int) -> Model:
    return Model(
        name="probe",
        layers=1,
        hidden=width,
        heads=heads,
        kv_heads=heads,
        ffn=1,
        vocab=1,
        max_seq_len=seq,
    )
