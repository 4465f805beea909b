"""Memory of the fullest device of a training plan, in parts that add up (bytes), on columns.

First and last pipeline stage are priced, and the heavier one is the peak: the first keeps the
most micro-batches in flight, the last the logits (Korthikanti et al. 2023, sections 4 and 5).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from twofold.perf.cluster import OrderColumns, order_columns
from twofold.perf.columns import ModelColumns, PlanColumns
from twofold.perf.host import UNKNOWN_HOST, USABLE_FRACTION, Host
from twofold.perf.layout import GRADIENT_BYTES, MASTER_BYTES, shard_ranks
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

MOMENT_BYTES = 8.0
FRAMEWORK_BYTES = 3e9
"""Context of the driver, communication buffers and libraries of a GPU: aiconfigurator reserves
3.5 GB and 0.35 for NCCL."""
FRAGMENTATION_FRACTION = 0.08
"""Of activations and working memory, lost between allocations."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FootprintColumns:
    """`parts_bytes` add up to `peak_bytes`: [rows]. `host_bytes` of the host's memory are taken for
    the device; `fits_host` says whether the machine has them for all its devices."""

    parts_bytes: dict[str, Array]
    peak_bytes: Array
    host_bytes: Array
    fits_host: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class StateColumns:
    """Bytes of the model's state on a device, whatever is computed with it: [ends, layouts],
    ends being the first and the last stage. [layouts]: `gathered` are weights held in passing,
    `checkpoint` what each device writes of one (weights, 32-bit copy, two moments); `host` and
    `fits_host` as in `FootprintColumns`."""

    weights: Array
    gradients: Array
    optimizer: Array
    gathered: Array
    checkpoint: Array
    host: Array
    fits_host: NDArray[np.bool_]


def footprint_columns(work: Work, plan: PlanColumns, model: ModelColumns) -> FootprintColumns:
    """The heavier of the first and the last stage."""
    return compose_footprint(
        work.saved_bytes,
        work.inputs_bytes[1],
        state_columns(plan, model),
        order_columns(plan, model),
        plan.recomputed,
        model,
    )


def compose_footprint(
    saved_bytes: Array,
    inputs_bytes: Array,
    state: StateColumns,
    order: OrderColumns,
    recomputed: Array,
    model: ModelColumns,
) -> FootprintColumns:
    """The same from each plan's layers' activations, its layout's state and its order."""
    first, last = (
        _live_parts(saved_bytes, inputs_bytes, state, order, recomputed, model, last=last)
        for last in (False, True)
    )
    held = state.weights + state.gradients + state.optimizer
    heavier = held[1] + sum(last.values()) > held[0] + sum(first.values())
    parts = {
        "weights": np.where(heavier, state.weights[1], state.weights[0]),
        "gradients": np.where(heavier, state.gradients[1], state.gradients[0]),
        "optimizer": np.where(heavier, state.optimizer[1], state.optimizer[0]),
        **{name: np.where(heavier, last[name], first[name]) for name in first},
        "framework": FRAMEWORK_BYTES * np.ones_like(recomputed),
    }
    return FootprintColumns(
        parts_bytes=parts,
        peak_bytes=np.asarray(sum(parts.values())),
        host_bytes=state.host,
        fits_host=state.fits_host,
    )


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


def layers_to_recompute(
    saved_bytes: Array,
    inputs_bytes: Array,
    state: StateColumns,
    order: OrderColumns,
    model: ModelColumns,
    usable_bytes: float,
) -> tuple[NDArray[np.bool_], Array, NDArray[np.bool_]]:
    """Whether a plan fits with nothing recomputed, the least layers a stage that must be so that
    it does (as many as the stage has where none do), and whether it fits with all of them.

    From one layer on the peak of either end falls linearly with the number.
    """
    per_stage = order.fullest_share * model.layers
    held = state.weights + state.gradients + state.optimizer + FRAMEWORK_BYTES

    def peaks(recomputed: Array) -> Array:
        return np.stack(
            [
                held[int(last)]
                + sum(
                    _live_parts(
                        saved_bytes, inputs_bytes, state, order, recomputed, model, last=last
                    ).values()
                )
                for last in (False, True)
            ]
        )

    ones = np.ones_like(per_stage)
    none, one, whole = peaks(0.0 * ones), peaks(1.0 / per_stage), peaks(ones)
    fall = np.maximum((one - whole) / np.maximum(per_stage - 1.0, 1.0), 1e-3)
    excess = one - usable_bytes
    # One beyond the quotient, so that rounding never leaves a plan a byte too large.
    layers = np.where(excess > 0, 2.0 + np.floor(excess / fall), 1.0).max(axis=0)
    return (
        state.fits_host & (none.max(axis=0) <= usable_bytes),
        np.where(state.fits_host, np.minimum(layers, per_stage), per_stage),
        state.fits_host & (whole.max(axis=0) <= usable_bytes),
    )


def state_columns(
    plan: PlanColumns, model: ModelColumns, host: Host = UNKNOWN_HOST
) -> StateColumns:
    """Of the plan only degrees, sharding, offload and width matter. `host` is of its machines."""
    pair = [_state_bytes(plan, model, last=last) for last in (False, True)]
    weights, gradients, updated = (np.stack(both) for both in zip(*pair, strict=True))
    mixed = plan.width_bytes < MASTER_BYTES
    copied = np.where(mixed, MASTER_BYTES, 0.0)
    saved = np.where(mixed, plan.width_bytes, 0.0) + MASTER_BYTES + MOMENT_BYTES
    parameters = model.dense + model.experts + model.input + model.output
    on_host = plan.offload * (MASTER_BYTES + MOMENT_BYTES) * updated.max(axis=0)
    devices = np.minimum(plan.devices, host.devices)
    return StateColumns(
        weights=weights,
        gradients=gradients,
        optimizer=(1.0 - plan.offload) * (copied + MOMENT_BYTES) * updated,
        gathered=np.where(plan.zero_stage >= 3, plan.width_bytes * _gathered(plan, model), 0.0),
        checkpoint=saved * parameters / plan.devices,
        host=on_host,
        fits_host=on_host * devices <= USABLE_FRACTION * host.memory_bytes,
    )


def _gathered(plan: PlanColumns, model: ModelColumns) -> Array:
    """Fully sharded weights held whole: one layer gathered for use, the next already on its way;
    or the embedding or the head beside a layer, where that is more."""
    layer = model.dense / plan.tensor + model.experts / (plan.expert * plan.expert_tensor)
    layer = layer / model.layers
    ends = np.maximum(model.input, model.output + model.tied) / plan.tensor
    return np.asarray(layer + np.maximum(layer, ends))


def _state_bytes(
    plan: PlanColumns, model: ModelColumns, *, last: bool
) -> tuple[Array, Array, Array]:
    """Bytes of weights and gradients of the first or the last stage, and the parameters that the
    device updates."""
    ends = model.output + model.tied if last else model.input
    ends = np.where(plan.pipeline <= 1, model.input + model.output, ends)
    layers = np.ceil(model.layers / plan.pipeline) / model.layers
    dense = (model.dense * layers + ends) / plan.tensor
    experts = model.experts * layers / (plan.expert * plan.expert_tensor)
    shard, expert_shard = shard_ranks(plan)
    sharded = dense / shard + experts / expert_shard
    whole = dense + experts
    trained = model.trainable_fraction
    return (
        plan.width_bytes * np.where(plan.zero_stage >= 3, sharded, whole),
        GRADIENT_BYTES * trained * np.where(plan.zero_stage >= 2, sharded, whole),
        trained * np.where(plan.zero_stage >= 1, sharded, whole),
    )


def _live_parts(
    saved_bytes: Array,
    inputs_bytes: Array,
    state: StateColumns,
    order: OrderColumns,
    recomputed: Array,
    model: ModelColumns,
    *,
    last: bool,
) -> dict[str, Array]:
    """What comes and goes with the micro-batches on the first or the last stage."""
    alone = order.stages <= 1
    flight = order.in_flight[int(last)]
    # What one stage keeps for one micro-batch; the embedding's and the head's only at the ends.
    kept = flight * order.fullest_share
    kept = kept * ((1.0 - recomputed) * saved_bytes[1] + recomputed * inputs_bytes)
    inputs = np.where(alone, saved_bytes[0] * flight, 0.0) if last else saved_bytes[0] * flight
    logits = saved_bytes[2] if last else np.where(alone, saved_bytes[2], 0.0)
    one_layer = (saved_bytes[1] - inputs_bytes) / model.layers
    # A layer that runs again has its activations, and soon as many gradients of them.
    working = 2.0 * one_layer * np.minimum(recomputed * model.layers, 1.0) + state.gathered
    return {
        "activations": (kept + inputs) * (1.0 + FRAGMENTATION_FRACTION),
        "logits": logits,
        "working": working * (1.0 + FRAGMENTATION_FRACTION),
    }
