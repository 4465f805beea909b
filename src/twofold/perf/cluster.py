"""The composer of training on a fleet: one optimizer step as parts that add up, on columns.

Work (what each device does) meets rates (how fast) under a plan (who does what, in which order).
Every row is one plan; rows may be of different models, fleets and dates, so that a search over
millions of plans of one model and a fit over published runs of many are the same code.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from twofold.perf import schedule
from twofold.perf.collectives import (
    Fabric,
    all_gather_s,
    all_reduce_s,
    all_to_all_s,
    reduce_scatter_s,
    send_s,
)
from twofold.perf.rates import Rates, overlapped_s
from twofold.perf.work import BACKWARD, FORWARD, REATTENDED, RECOMPUTED, Work

Array = NDArray[np.float64]

PARTS = (
    "gemm",
    "attention",
    "elementwise",
    "launch",
    "recompute",
    "tensor messages",
    "context messages",
    "expert messages",
    "pipeline bubble",
    "pipeline messages",
    "data messages",
    "optimizer",
    "fixed",
    "jitter",
)

WEIGHT_BYTES = 2.0
GRADIENT_BYTES = 4.0
"""Gradients are accumulated and reduced in 32 bits (Megatron-LM's default in 16-bit training);
fully sharded training reduces them in 16."""
SHARDED_GRADIENT_BYTES = 2.0
UPDATE_BYTES = 30.0
"""Per parameter: gradient read 4; master weight and two moments read and written 24; 16-bit
weight written 2 (Adam in mixed precision, Rajbhandari et al. 2020, section 3.1)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanColumns:
    """The plan of each row: [rows]. `schedule` are `schedule.CODES`; `devices` all of them.
    `unfused` flags software of before fused attention; `recomputed` is the fraction of a
    stage's layers that is recomputed in full."""

    devices: Array
    tensor: Array
    context: Array
    pipeline: Array
    data: Array
    expert: Array
    expert_tensor: Array
    zero_stage: Array
    shard: Array
    schedule: NDArray[np.int64]
    virtual: Array
    micro_batch: Array
    global_batch: Array
    offload: Array
    unfused: Array
    recomputed: Array

    @property
    def micro_batches(self) -> Array:
        return self.global_batch / (self.data * self.micro_batch)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelColumns:
    """Parameters of each row's model by where they live, and its layers: [rows].

    `trainable_fraction` of them have gradients and optimizer state.
    """

    dense: Array
    experts: Array
    input: Array
    output: Array
    layers: Array
    trainable_fraction: Array


@dataclass(frozen=True, slots=True, kw_only=True)
class StepColumns:
    """`parts_s` add up to `step_time_s`; `busy_s` is the busiest device's own work."""

    parts_s: dict[str, Array]
    step_time_s: Array
    compute_s: Array
    messages_s: Array


def fabric_of(rates: Rates) -> Fabric:
    return Fabric(
        domain=rates.scale_up_domain,
        up_bytes_per_s=rates.up_bytes_per_s,
        up_latency_s=rates.up_latency_s,
        out_bytes_per_s=rates.out_bytes_per_s,
        out_latency_s=rates.out_latency_s,
        mesh_pair_bytes_per_s=rates.mesh_pair_bytes_per_s,
        torus_axes=rates.torus_axes,
    )


def step_columns(work: Work, plan: PlanColumns, model: ModelColumns, rates: Rates) -> StepColumns:
    """Seconds of one optimizer step, by cause."""
    fabric = fabric_of(rates)
    gemm, attention, stream, launch = _compute_s(work, plan, rates)
    launch = _exposed_s(gemm + attention + stream, launch, rates.launch_overlap)
    compute = gemm + attention + stream + launch
    tensor = _exposed_s(compute, _tensor_s(work, plan, fabric), rates.tensor_overlap)
    context = _exposed_s(attention, _context_s(work, plan, fabric), rates.tensor_overlap)
    expert = _exposed_s(compute, _expert_s(work, plan, rates, fabric), rates.expert_overlap)
    stage = _Stage(plan, model)
    micros = plan.micro_batches

    def passes(times: Array) -> tuple[Array, Array]:
        """First passes and recomputation, [segments, rows]."""
        again = plan.recomputed * times[:, RECOMPUTED]
        again = again + (1.0 - plan.recomputed) * times[:, REATTENDED]
        return times[:, FORWARD] + times[:, BACKWARD], again

    parts: dict[str, Array] = {}
    recompute = np.zeros_like(micros)
    for name, times in (
        ("gemm", gemm),
        ("attention", attention),
        ("elementwise", stream),
        ("launch", launch),
        ("tensor messages", tensor),
        ("context messages", context),
        ("expert messages", expert),
    ):
        once, again = passes(times)
        parts[name] = micros * stage.slowest(once)
        recompute = recompute + micros * stage.slowest(again)
    parts["recompute"] = recompute
    micro = compute + tensor + context + expert
    once, again = passes(micro)
    forward_s = stage.others(micro[:, FORWARD])
    parts["pipeline bubble"] = schedule.bubble_s(
        plan.schedule,
        stages=plan.pipeline,
        micro_batches=micros,
        virtual=plan.virtual,
        forward_s=forward_s,
        backward_s=stage.others(once + again) - forward_s,
        weight_s=stage.others(gemm[:, FORWARD]),
    )
    parts["pipeline messages"] = _pipeline_s(work, plan, rates, fabric)
    micro_s = stage.slowest(once + again)
    parts["data messages"] = _data_s(plan, model, rates, fabric, micro_s)
    parts["optimizer"] = _optimizer_s(plan, model, rates)
    parts["fixed"] = rates.step_s * np.ones_like(micros)
    total = np.sum(list(parts.values()), axis=0)
    parts["jitter"] = total * rates.jitter * np.log2(np.maximum(plan.devices / 8.0, 1.0))
    messages = sum(parts[name] for name in PARTS if name.endswith("messages"))
    busy, again = passes(compute)
    compute_s = micros * stage.slowest(busy + again) + parts["optimizer"]
    return StepColumns(
        parts_s={name: parts[name] for name in PARTS},
        step_time_s=total + parts["jitter"],
        compute_s=compute_s,
        messages_s=np.asarray(messages),
    )


def _compute_s(work: Work, plan: PlanColumns, rates: Rates) -> tuple[Array, Array, Array, Array]:
    """[segments, phases, rows] of products, attention, streaming and launches."""
    narrow = 1.0 / rates.narrow_flop_per_s
    wide = 1.0 / rates.wide_flop_per_s
    expert = np.where(work.narrow_flop.sum(axis=(0, 1)) > 0, narrow, wide)
    gemm = (
        work.narrow_flop * narrow
        + work.wide_flop * wide
        + work.expert_flop * ((rates.expert_imbalance - 1.0) * expert)
        + work.gemm_bytes * (rates.gemm_byte_share / rates.bytes_per_s)
    )
    stream = np.where(plan.unfused > 0, rates.unfused_stream, rates.fused_stream)
    calls = 1.0 + plan.unfused * (rates.unfused_calls - 1.0)
    return (
        gemm,
        work.attention_flop / rates.attention_flop_per_s,
        work.stream_bytes * (stream / rates.bytes_per_s),
        work.calls * (calls * rates.call_s),
    )


def _exposed_s(compute_s: Array, message_s: Array, overlap: Array) -> Array:
    return overlapped_s(compute_s, message_s, overlap) - compute_s


def _tensor_s(work: Work, plan: PlanColumns, fabric: Fabric) -> Array:
    calls = work.tensor_calls
    each = work.tensor_bytes / np.maximum(calls, 1.0)
    return calls * all_reduce_s(each, plan.tensor, np.ones_like(plan.tensor), fabric)


def _context_s(work: Work, plan: PlanColumns, fabric: Fabric) -> Array:
    """Keys and values travel round a ring of the context ranks."""
    calls = work.context_calls
    each = work.context_bytes / np.maximum(calls, 1.0)
    return calls * send_s(each, plan.context, plan.tensor, fabric)


def _expert_s(work: Work, plan: PlanColumns, rates: Rates, fabric: Fabric) -> Array:
    calls = work.expert_calls
    each = rates.expert_imbalance * work.expert_bytes / np.maximum(calls, 1.0)
    return calls * all_to_all_s(each, plan.expert, plan.expert_tensor, fabric)


class _Stage:
    """The slowest pipeline stage: its share of the blocks, and the input's or output's rows."""

    def __init__(self, plan: PlanColumns, model: ModelColumns) -> None:
        chunks = plan.pipeline * plan.virtual
        self.share = np.ceil(model.layers / chunks) * plan.virtual / model.layers
        self.alone = plan.pipeline <= 1
        self.stages = plan.pipeline

    def slowest(self, by_segment: Array) -> Array:
        """[segments, rows] -> [rows]."""
        both = by_segment[0] + by_segment[2]
        ends = np.where(self.alone, both, np.maximum(by_segment[0], by_segment[2]))
        return self.share * by_segment[1] + ends

    def others(self, by_segment: Array) -> Array:
        """Mean of the other stages: they fill and drain the pipeline about the slowest one."""
        rest = by_segment.sum(axis=0) - self.slowest(by_segment)
        return np.maximum(rest, 0.0) / np.maximum(self.stages - 1.0, 1.0)


def _pipeline_s(work: Work, plan: PlanColumns, rates: Rates, fabric: Fabric) -> Array:
    """Every micro-batch's activations come in and gradients go out, once per model chunk."""
    share = work.boundary_bytes / np.where(plan.pipeline > 1, plan.tensor, 1.0)
    stride = plan.tensor * plan.context * plan.data
    one = send_s(share, plan.pipeline, stride, fabric)
    count = schedule.messages(plan.schedule, plan.pipeline, plan.micro_batches, plan.virtual)
    return (1.0 - rates.pipeline_overlap) * count * one


def local_parameters(plan: PlanColumns, model: ModelColumns) -> tuple[Array, Array]:
    """Dense and expert parameters on a device of the heaviest stage, before sharding."""
    ends = np.where(
        plan.pipeline > 1, np.maximum(model.input, model.output), model.input + model.output
    )
    dense = (model.dense / plan.pipeline + ends) / plan.tensor
    experts = model.experts / (plan.pipeline * plan.expert * plan.expert_tensor)
    return dense, experts


def replicas(plan: PlanColumns) -> tuple[Array, Array]:
    """Data-parallel ranks that hold the same dense, and the same expert, parameters."""
    ranks = plan.data * plan.context
    return ranks, np.maximum(ranks * plan.tensor / (plan.expert * plan.expert_tensor), 1.0)


def _data_s(
    plan: PlanColumns, model: ModelColumns, rates: Rates, fabric: Fabric, micro_s: Array
) -> Array:
    """Gradient and weight traffic of data parallelism that no arithmetic hides.

    Replicated weights (stage 0): one all-reduce a step; sharded optimizer (1, 2): a
    reduce-scatter of gradients and an all-gather of weights a step; sharded weights (3): two
    all-gathers and a reduce-scatter every micro-batch (Zhao et al. 2023, FSDP). Hybrid
    sharding adds an all-reduce of each shard between the groups.
    """
    dense, experts = local_parameters(plan, model)
    ranks, expert_ranks = replicas(plan)
    trained = model.trainable_fraction
    exchange, every = np.zeros_like(ranks), np.zeros_like(ranks)
    for size, group, stride in (
        (dense, ranks, plan.tensor),
        (experts, expert_ranks, plan.expert * plan.expert_tensor),
    ):
        shard = np.where(plan.shard > 0, np.minimum(plan.shard, group), group)
        gradients = trained * size
        stage0 = all_reduce_s(GRADIENT_BYTES * gradients, group, stride, fabric)
        between = all_reduce_s(
            GRADIENT_BYTES * gradients / shard, group / shard, stride * shard, fabric
        )
        stage1 = reduce_scatter_s(GRADIENT_BYTES * gradients, shard, stride, fabric) + all_gather_s(
            WEIGHT_BYTES * gradients, shard, stride, fabric
        )
        stage3 = 2.0 * all_gather_s(WEIGHT_BYTES * size, shard, stride, fabric)
        stage3 = stage3 + reduce_scatter_s(
            SHARDED_GRADIENT_BYTES * gradients, shard, stride, fabric
        )
        exchange = exchange + np.where(plan.zero_stage < 1, stage0, between)
        exchange = exchange + np.where((plan.zero_stage >= 1) & (plan.zero_stage < 3), stage1, 0.0)
        every = every + np.where(plan.zero_stage >= 3, stage3, 0.0)
    return _exposed_s(micro_s, exchange, rates.data_overlap) + plan.micro_batches * _exposed_s(
        micro_s, every, rates.data_overlap
    )


def _optimizer_s(plan: PlanColumns, model: ModelColumns, rates: Rates) -> Array:
    dense, experts = local_parameters(plan, model)
    ranks, expert_ranks = replicas(plan)
    sharded = plan.zero_stage >= 1
    held = np.where(sharded, dense / ranks + experts / expert_ranks, dense + experts)
    speed = np.where(plan.offload > 0, rates.host_bytes_per_s, rates.bytes_per_s)
    return UPDATE_BYTES * model.trainable_fraction * held / speed
