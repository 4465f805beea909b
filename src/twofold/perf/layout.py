"""What the spreading of parameters over devices takes: who holds what, and the traffic of data
parallelism in all its forms, on columns. Nothing here depends on how a layer computes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from twofold.perf.collectives import all_gather_s, all_reduce_s, reduce_scatter_s, send_s
from twofold.perf.columns import ModelColumns, PlanColumns, fabric_of
from twofold.perf.host import UNKNOWN_HOST, Host
from twofold.perf.rates import Rates

Array = NDArray[np.float64]

GRADIENT_BYTES = 4.0
"""Gradients are accumulated and reduced in 32 bits (Megatron-LM's default in 16-bit training).
Fully sharded training reduces them in the width of the weights, whatever it accumulates in."""
MASTER_BYTES = 4.0
"""A 32-bit weight: a copy in mixed precision, the weight itself in fp32 training."""
UPDATE_BYTES = 28.0
"""Per parameter: gradient read 4; 32-bit weight and two moments read and written 24. In mixed
precision the 16-bit weight is written too: 30 (Adam, Rajbhandari et al. 2020, section 3.1)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayoutColumns:
    """What the spreading of weights over devices takes, whatever the layers do: [layouts].

    Seconds before any is hidden: `exchange_s` of messages once a step, `every_s` once a
    micro-batch; `accumulate_s` for every micro-batch after the first; `optimizer_s` a step.
    `jitter_fraction` of a step is waited for the slowest. A boundary of b bytes goes to the next
    stage in hop_s + b hop_s_per_byte.
    """

    exchange_s: Array
    every_s: Array
    accumulate_s: Array
    optimizer_s: Array
    jitter_fraction: Array
    hop_s: Array
    hop_s_per_byte: Array


def layout_columns(
    plan: PlanColumns, model: ModelColumns, rates: Rates, host: Host = UNKNOWN_HOST
) -> LayoutColumns:
    """Of the plan only degrees, sharding, offload and width matter."""
    exchange_s, every_s = _data_s(plan, model, rates)
    fabric = fabric_of(rates)
    prompt = replace(fabric, up_latency_s=0.0, out_latency_s=0.0)
    stride = plan.tensor * plan.context * plan.data
    return LayoutColumns(
        exchange_s=exchange_s,
        every_s=every_s,
        accumulate_s=_accumulate_s(plan, model, rates),
        optimizer_s=_optimizer_s(plan, model, rates, host),
        jitter_fraction=rates.jitter * np.log2(np.maximum(plan.devices / 8.0, 1.0)),
        hop_s=send_s(0.0, plan.pipeline, stride, fabric),
        # Each tensor rank sends its slice, where there are stages to send it to.
        hop_s_per_byte=send_s(1.0, plan.pipeline, stride, prompt)
        / np.where(plan.pipeline > 1, plan.tensor, 1.0),
    )


def local_parameters(plan: PlanColumns, model: ModelColumns) -> tuple[Array, Array]:
    """Dense and expert parameters on a device of the heaviest stage, before sharding."""
    ends = np.where(
        plan.pipeline > 1,
        np.maximum(model.input, model.output + model.tied),
        model.input + model.output,
    )
    dense = (model.dense / plan.pipeline + ends) / plan.tensor
    experts = model.experts / (plan.pipeline * plan.expert * plan.expert_tensor)
    return dense, experts


def replicas(plan: PlanColumns) -> tuple[Array, Array]:
    """Data-parallel ranks that hold the same dense, and the same expert, parameters."""
    ranks = plan.data * plan.context
    return ranks, np.maximum(ranks * plan.tensor / (plan.expert * plan.expert_tensor), 1.0)


def shard_ranks(plan: PlanColumns) -> tuple[Array, Array]:
    """Ranks over which dense, and expert, state is sharded where it is: all that hold the same,
    or fewer (hybrid sharding)."""
    dense, experts = replicas(plan)
    if_fewer = np.where(plan.shard > 0, plan.shard, np.inf)
    return np.minimum(if_fewer, dense), np.minimum(if_fewer, experts)


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
    shards = shard_ranks(plan)
    trained = model.trainable_fraction
    exchange, every = np.zeros_like(ranks), np.zeros_like(ranks)
    for size, group, shard, stride in (
        (dense, ranks, shards[0], plan.tensor),
        (experts, expert_ranks, shards[1], plan.expert * plan.expert_tensor),
    ):
        gradients = trained * size
        stage0 = all_reduce_s(GRADIENT_BYTES * gradients, group, stride, fabric)
        between = all_reduce_s(
            GRADIENT_BYTES * gradients / shard, group / shard, stride * shard, fabric
        )
        stage1 = reduce_scatter_s(GRADIENT_BYTES * gradients, shard, stride, fabric) + all_gather_s(
            plan.width_bytes * gradients, shard, stride, fabric
        )
        stage3 = 2.0 * all_gather_s(plan.width_bytes * size, shard, stride, fabric)
        stage3 = stage3 + reduce_scatter_s(plan.width_bytes * gradients, shard, stride, fabric)
        exchange = exchange + np.where(plan.zero_stage < 1, stage0, between)
        exchange = exchange + np.where((plan.zero_stage >= 1) & (plan.zero_stage < 3), stage1, 0.0)
        every = every + np.where(plan.zero_stage >= 3, stage3, 0.0)
    return exchange, every


def _accumulate_s(plan: PlanColumns, model: ModelColumns, rates: Rates) -> Array:
    """Adding one more micro-batch's gradients to those that are there, where the products do not
    do it themselves: the sum read and written, the new ones read (10 bytes a parameter in mixed
    precision); of a shard alone where gradients are sharded."""
    dense, experts = local_parameters(plan, model)
    ranks, expert_ranks = shard_ranks(plan)
    held = np.where(plan.zero_stage >= 2, dense / ranks + experts / expert_ranks, dense + experts)
    moved = 2.0 * GRADIENT_BYTES + plan.width_bytes
    seconds = moved * rates.update_stream / rates.bytes_per_s
    return np.asarray(plan.apart * model.trainable_fraction * held * seconds)


def _optimizer_s(plan: PlanColumns, model: ModelColumns, rates: Rates, host: Host) -> Array:
    """Each rank updates what it holds of the state, in the device's memory or in the host's: then
    gradients go down and weights come up over the host link, and the rest stays there (ZeRO-
    Offload, Ren et al. 2021, section 4.1); nothing of it is taken to overlap."""
    dense, experts = local_parameters(plan, model)
    ranks, expert_ranks = shard_ranks(plan)
    sharded = plan.zero_stage >= 1
    held = np.where(sharded, dense / ranks + experts / expert_ranks, dense + experts)
    update = UPDATE_BYTES + np.where(plan.width_bytes < MASTER_BYTES, plan.width_bytes, 0.0)
    crossing_s = (GRADIENT_BYTES + plan.width_bytes) / rates.host_bytes_per_s
    seconds = np.where(
        plan.offload > 0,
        crossing_s + update / host.bytes_per_s,
        update * rates.update_stream / rates.bytes_per_s,
    )
    return np.asarray(model.trainable_fraction * held * seconds)
