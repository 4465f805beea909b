"""`Plan`: how a workload is executed, without changing what it computes beyond rounding."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

from twofold.errors import InputError

Precision = Literal["fp32", "tf32", "bf16", "fp16", "fp8", "mxfp8", "nvfp4"]
Attention = Literal["sdpa", "explicit"]
Recompute = Literal["none", "selective", "full"]
Schedule = Literal["gpipe", "1f1b", "interleaved", "zb-h1"]
Offload = Literal["none", "optimizer"]
OptimizerKernel = Literal["loop", "foreach", "fused"]
Effect = Literal["exact", "rounding", "lossy"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Every lever of an execution on one pool.

    `micro_batch` counts sequences per forward pass; the global batch is a multiple of it.
    `orthogonal_precision` is that of Muon's matrix iteration. `threads` are CPU threads.

    Devices = data x tensor x context x pipeline degrees; tensor ranks are nearest neighbours,
    then context, data and pipeline. Experts spread over `expert_degree` of the data and context
    ranks, each expert over `expert_tensor_degree`. `zero_stage` shards optimizer state (1),
    gradients (2) and weights (3) over `shard_degree` data ranks (0: all; fewer is HSDP).
    `virtual_stages` are model chunks a device under the interleaved schedule.
    `recompute_layers` counts, per stage, the layers recomputed under `full` (None: all).
    """

    pool: str = "local"
    data_degree: int = 1
    tensor_degree: int = 1
    pipeline_degree: int = 1
    context_degree: int = 1
    expert_degree: int = 1
    expert_tensor_degree: int = 1
    sequence_parallel: bool = False
    zero_stage: Literal[0, 1, 2, 3] = 0
    shard_degree: int = 0
    schedule: Schedule = "1f1b"
    virtual_stages: int = 1
    recompute_layers: int | None = None
    offload: Offload = "none"
    micro_batch: int
    precision: Precision = "fp32"
    attention: Attention = "sdpa"
    recompute: Recompute = "none"
    compile: bool = False
    threads: int = 1
    optimizer_kernel: OptimizerKernel = "loop"
    orthogonal_precision: Literal["fp32", "bf16"] = "bf16"

    def __post_init__(self) -> None:
        for field in _AT_LEAST_ONE:
            if getattr(self, field) < 1:
                raise InputError(
                    f"{field} is {getattr(self, field)}",
                    at=f"plan, {field}",
                    help="use at least 1",
                )


_AT_LEAST_ONE = (
    "data_degree",
    "tensor_degree",
    "pipeline_degree",
    "context_degree",
    "expert_degree",
    "expert_tensor_degree",
    "virtual_stages",
    "micro_batch",
    "threads",
)

LEVER_EFFECT: dict[str, Effect] = {
    "pool": "rounding",
    "data_degree": "rounding",
    "tensor_degree": "rounding",
    "pipeline_degree": "rounding",
    "context_degree": "rounding",
    "expert_degree": "rounding",
    "expert_tensor_degree": "rounding",
    "sequence_parallel": "rounding",
    "zero_stage": "rounding",
    "shard_degree": "rounding",
    "schedule": "exact",
    "virtual_stages": "exact",
    "recompute_layers": "exact",
    "offload": "exact",
    "micro_batch": "rounding",
    "precision": "rounding",
    "attention": "rounding",
    "recompute": "exact",
    "compile": "rounding",
    "threads": "rounding",
    "optimizer_kernel": "rounding",
    "orthogonal_precision": "rounding",
}
"""What each lever does to the numbers. `rounding` changes the last bits (another order of
summation, bf16 or tf32 multiplication), so loss parity is still checked; nothing here is lossy."""


def differing_levers(a: Plan, b: Plan) -> dict[str, Effect]:
    """The levers in which two plans differ, each with its effect."""
    return {
        field.name: LEVER_EFFECT[field.name]
        for field in fields(Plan)
        if getattr(a, field.name) != getattr(b, field.name)
    }


def describe_plan(plan: Plan) -> str:
    """One line for tables: `fp32 sdpa 2 threads micro-batch 8 fused`."""
    words = [
        plan.precision,
        plan.attention,
        f"{plan.threads} thread{'s' if plan.threads > 1 else ''}",
        f"micro-batch {plan.micro_batch}",
        plan.optimizer_kernel,
    ]
    if plan.recompute != "none":
        words.append(f"recompute {plan.recompute}")
    if plan.compile:
        words.append("compiled")
    return " ".join(words)
