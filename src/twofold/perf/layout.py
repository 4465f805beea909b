"""What the spreading of parameters over devices takes: who holds what, and the traffic of data
parallelism in all its forms, on columns. Nothing here depends on how a layer computes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from twofold.perf.collectives import all_gather_s, all_reduce_s, reduce_scatter_s, send_s
from twofold.perf.columns import ModelColumns, PlanColumns, fabric_of
from twofold.perf.rates import Rates

Array = NDArray[np.float64]

WEIGHT_BYTES = 2.0
GRADIENT_BYTES = 4.0
"""Gradients are accumulated and reduced in 32 bits (Megatron-LM's default in 16-bit training)."""
SHARDED_GRADIENT_BYTES = 2.0
"""Fully sharded training reduces gradients in 16 bits, whatever it accumulates in."""
UPDATE_BYTES = 30.0
"""Per parameter: gradient read 4; master weight and two moments read and written 24; 16-bit
weight written 2 (Adam in mixed precision, Rajbhandari et al. 2020, section 3.1)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayoutColumns:
    """What the spreading of weights over devices takes, whatever the layers do: [layouts].

    Seconds before any is hidden: `exchange_s` of messages once a step, `every_s` once a
    micro-batch; `optimizer_s` a step. `jitter_fraction` of a step is waited for the slowest. A
    boundary of b bytes goes to the next stage in hop_s + b hop_s_per_byte.
    """

    exchange_s: Array
    every_s: Array
    optimizer_s: Array
    jitter_fraction: Array
    hop_s: Array
    hop_s_per_byte: Array


def layout_columns(plan: PlanColumns, model: ModelColumns, rates: Rates) -> LayoutColumns:
    """Of the plan only degrees, sharding and offload matter."""
    exchange_s, every_s = _data_s(plan, model, rates)
    fabric = fabric_of(rates)
    prompt = replace(fabric, up_latency_s=0.0, out_latency_s=0.0)
    stride = plan.tensor * plan.context * plan.data
    return LayoutColumns(
        exchange_s=exchange_s,
        every_s=every_s,
        optimizer_s=_optimizer_s(plan, model, rates),
        jitter_fraction=rates.jitter * np.log2(np.maximum(plan.devices / 8.0, 1.0)),
        hop_s=send_s(0.0, plan.pipeline, stride, fabric),
        # Each tensor rank sends its slice, where there are stages to send it to.
        hop_s_per_byte=send_s(1.0, plan.pipeline, stride, prompt)
        / np.where(plan.pipeline > 1, plan.tensor, 1.0),
    )


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


def _data_s(plan: PlanColumns, model: ModelColumns, rates: Rates) -> tuple[Array, Array]:
    """Gradient and weight traffic of data parallelism, once a step and once a micro-batch.

    Replicated weights (stage 0): one all-reduce a step; sharded optimizer (1, 2): a
    reduce-scatter of gradients and an all-gather of weights a step; sharded weights (3): two
    all-gathers and a reduce-scatter every micro-batch (Zhao et al. 2023, FSDP). Hybrid
    sharding adds an all-reduce of each shard between the groups.
    """
    fabric = fabric_of(rates)
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
    return exchange, every


def _optimizer_s(plan: PlanColumns, model: ModelColumns, rates: Rates) -> Array:
    dense, experts = local_parameters(plan, model)
    ranks, expert_ranks = replicas(plan)
    sharded = plan.zero_stage >= 1
    held = np.where(sharded, dense / ranks + experts / expert_ranks, dense + experts)
    speed = np.where(plan.offload > 0, rates.host_bytes_per_s, rates.bytes_per_s)
    return UPDATE_BYTES * model.trainable_fraction * held / speed
