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
Exchange = Literal["fp32", "bf16", "int8"]
Effect = Literal["exact", "rounding", "lossy"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """Data ranks of one pool, each taking `sequences` of every global batch.

    Ranks that split a batch's sequences or layers among them (tensor, context, pipeline) count
    as one data rank.
    """

    pool: str
    ranks: int
    sequences: int

    def __post_init__(self) -> None:
        _refuse_below_one(self, ("ranks", "sequences"), at="plan, shares")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One pipeline stage: `layers` contiguous blocks on devices of one pool."""

    pool: str
    layers: int

    def __post_init__(self) -> None:
        _refuse_below_one(self, ("layers",), at="plan, stages")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Every lever of an execution, on one pool or on several unlike ones.

    `micro_batch` counts sequences per forward pass; the global batch is a multiple of it.
    `orthogonal_precision` is that of Muon's matrix iteration. `threads` are CPU threads.

    Devices = data x tensor x context x pipeline degrees; tensor ranks are nearest neighbours,
    then context, data and pipeline. Experts spread over `expert_degree` of the data and context
    ranks, each expert over `expert_tensor_degree`. `zero_stage` shards optimizer state (1),
    gradients (2) and weights (3) over `shard_degree` data ranks (0: all; fewer is HSDP).
    `virtual_stages` are model chunks a device under the interleaved schedule.
    `recompute_layers` counts, per stage, the layers recomputed under `full` (None: all).

    Unlike pools: `shares` gives the data ranks in rank order (empty: equal shares on `pool`), and
    `stages` the pipeline stages in order (empty: as equal as the layers allow). Ranks whose shares
    differ take as many micro-batches each, of unlike sizes; `micro_batch` is the largest.
    `rebalance_steps`: shares follow the measured speeds every so many steps (0: never).

    Local updates (DiLoCo): every data rank takes `local_steps` optimizer steps alone between
    exchanges (0: gradients are summed every step), in `exchange_fragments` pieces spread over
    those steps (streaming), sent as `exchange_precision`.
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
    shares: tuple[Share, ...] = ()
    stages: tuple[Stage, ...] = ()
    rebalance_steps: int = 0
    local_steps: int = 0
    exchange_precision: Exchange = "fp32"
    exchange_fragments: int = 1

    def __post_init__(self) -> None:
        _refuse_below_one(self, _AT_LEAST_ONE, at="plan")
        shared_ranks = sum(share.ranks for share in self.shares)
        if self.shares and shared_ranks != self.data_degree:
            raise InputError(
                f"the shares are for {shared_ranks} data ranks and data_degree is "
                f"{self.data_degree}",
                at="plan, shares",
                help="give every data rank one share",
            )
        if self.stages and len(self.stages) != self.pipeline_degree:
            raise InputError(
                f"there are {len(self.stages)} stages and pipeline_degree is "
                f"{self.pipeline_degree}",
                at="plan, stages",
                help="give every pipeline rank one stage",
            )

    @property
    def num_ranks(self) -> int:
        return self.data_degree * self.tensor_degree * self.context_degree * self.pipeline_degree


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
    "exchange_fragments",
)


def _refuse_below_one(record: object, names: tuple[str, ...], *, at: str) -> None:
    for name in names:
        if getattr(record, name) < 1:
            raise InputError(
                f"{name} is {getattr(record, name)}", at=f"{at}, {name}", help="use at least 1"
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
    "shares": "rounding",
    "stages": "exact",
    "rebalance_steps": "rounding",
    "local_steps": "lossy",
    "exchange_precision": "lossy",
    "exchange_fragments": "lossy",
}
"""What each lever does to the numbers. `rounding` changes the last bits (another order of
summation, bf16 or tf32 multiplication), so loss parity is still checked. Local updates are
`lossy`: another trajectory, judged by held-out loss."""


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
