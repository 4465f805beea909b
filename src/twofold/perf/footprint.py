"""Memory of the fullest device of a training plan, in parts that add up (bytes), on columns.

First and last pipeline stage are priced, and the heavier one is the peak: the first keeps the
most micro-batches in flight, the last the logits (Korthikanti et al. 2023, sections 4 and 5).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from twofold.perf import schedule
from twofold.perf.cluster import (
    GRADIENT_BYTES,
    WEIGHT_BYTES,
    ModelColumns,
    PlanColumns,
    replicas,
)
from twofold.perf.work import Work

Array = NDArray[np.float64]

MEMORY_PARTS = (
    "weights",
    "gradients",
    "optimizer",
    "activations",
    "logits",
    "working",
    "framework",
)

MASTER_BYTES = 4.0
MOMENT_BYTES = 8.0
FRAMEWORK_BYTES = 1.5e9
"""Context of the driver, communication buffers and libraries of a GPU: 1 to 2 GB is usual."""
FRAGMENTATION_FRACTION = 0.05
"""Of activations and working memory, lost between allocations."""
_GATHERED_LAYERS = 2.0
"""Fully sharded weights: one layer gathered for use, the next already on its way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FootprintColumns:
    """`parts_bytes` add up to `peak_bytes`: [rows]."""

    parts_bytes: dict[str, Array]
    peak_bytes: Array


def footprint_columns(work: Work, plan: PlanColumns, model: ModelColumns) -> FootprintColumns:
    """The heavier of the first and the last stage."""
    first = _stage_parts(work, plan, model, last=False)
    last = _stage_parts(work, plan, model, last=True)
    heavier = sum(last.values()) > sum(first.values())
    parts = {name: np.where(heavier, last[name], first[name]) for name in MEMORY_PARTS}
    return FootprintColumns(parts_bytes=parts, peak_bytes=np.sum(list(parts.values()), axis=0))


def least_recomputed(
    work: Work, plan: PlanColumns, model: ModelColumns, usable_bytes: Array
) -> Array:
    """The least fraction of layers to recompute so that the plan fits; 1 where even that fails.

    The peak falls linearly with the fraction once one layer's transient is paid for.
    """
    none = footprint_columns(work, replace(plan, recomputed=np.zeros_like(plan.data)), model)
    full = footprint_columns(work, replace(plan, recomputed=np.ones_like(plan.data)), model)
    excess = none.peak_bytes - usable_bytes
    saved = np.maximum(none.peak_bytes - full.peak_bytes, 1.0)
    per_stage = np.ceil(model.layers / plan.pipeline)
    layers = np.ceil(np.maximum(excess, 0.0) / saved * per_stage)
    return np.minimum(layers / per_stage, 1.0)


def _stage_parts(
    work: Work, plan: PlanColumns, model: ModelColumns, *, last: bool
) -> dict[str, Array]:
    alone = plan.pipeline <= 1
    ends = model.output if last else model.input
    ends = np.where(alone, model.input + model.output, ends)
    layers = np.ceil(model.layers / plan.pipeline) / model.layers
    dense = (model.dense * layers + ends) / plan.tensor
    experts = model.experts * layers / (plan.expert * plan.expert_tensor)
    ranks, expert_ranks = replicas(plan)
    shard = np.where(plan.shard > 0, np.minimum(plan.shard, ranks), ranks)
    expert_shard = np.where(plan.shard > 0, np.minimum(plan.shard, expert_ranks), expert_ranks)
    sharded = dense / shard + experts / expert_shard
    whole = dense + experts
    trained = model.trainable_fraction
    flight = schedule.in_flight(
        plan.schedule,
        stages=plan.pipeline,
        micro_batches=plan.micro_batches,
        virtual=plan.virtual,
        stage=plan.pipeline - 1.0 if last else np.zeros_like(plan.pipeline),
    )
    # What one stage keeps for one micro-batch; the embedding's and the head's only at the ends.
    share = plan.recomputed
    kept = flight * layers * ((1.0 - share) * work.saved_bytes[1] + share * work.inputs_bytes[1])
    inputs = np.where(alone | (not last), work.saved_bytes[0] * flight, 0.0)
    logits = np.where(alone | last, work.saved_bytes[2], 0.0)
    gathered = np.where(
        plan.zero_stage >= 3,
        _GATHERED_LAYERS
        * WEIGHT_BYTES
        * (model.dense + model.experts)
        / model.layers
        / plan.tensor,
        0.0,
    )
    one_layer = (work.saved_bytes[1] - work.inputs_bytes[1]) / model.layers
    working = one_layer * np.minimum(share * model.layers, 1.0) + gathered
    on_device = 1.0 - plan.offload
    state = np.where(plan.zero_stage >= 1, sharded, whole)
    return {
        "weights": WEIGHT_BYTES * np.where(plan.zero_stage >= 3, sharded, whole),
        "gradients": GRADIENT_BYTES * trained * np.where(plan.zero_stage >= 2, sharded, whole),
        "optimizer": on_device * (MASTER_BYTES + MOMENT_BYTES) * trained * state,
        "activations": (kept + inputs) * (1.0 + FRAGMENTATION_FRACTION),
        "logits": logits,
        "working": working * (1.0 + FRAGMENTATION_FRACTION),
        "framework": FRAMEWORK_BYTES * np.ones_like(whole),
    }
