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
from twofold.perf.collectives import Fabric, all_reduce_s, all_to_all_s, send_s
from twofold.perf.columns import ModelColumns, PlanColumns, fabric_of
from twofold.perf.layout import LayoutColumns, layout_columns
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
LAYER_PARTS = (
    "gemm",
    "attention",
    "elementwise",
    "launch",
    "tensor messages",
    "context messages",
    "expert messages",
)
"""Those that the layers take, micro-batch by micro-batch."""
_NO_TIME_S = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class StepColumns:
    """`parts_s` add up to `step_time_s`; `messages_s` are those of them that are messages."""

    parts_s: dict[str, Array]
    step_time_s: Array
    messages_s: Array


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerColumns:
    """What the layers take under one layer key, all that a plan needs to know of them: [.., keys].

    Seconds of one micro-batch, [segments, keys]: `parts_s` [parts, segments, keys] forward and
    backward by `LAYER_PARTS` and `once_s` their sum; `forward_s` of it forward, `weight_s` the
    products forward, which weight gradients repeat; `again_s` [levels, segments, keys] what is
    run again where all is recomputed and where attention alone is. Bytes as in `Work`, the
    inputs' of the blocks alone.
    """

    parts_s: Array
    once_s: Array
    forward_s: Array
    weight_s: Array
    again_s: Array
    saved_bytes: Array
    inputs_bytes: Array
    boundary_bytes: Array


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderColumns:
    """How a step runs, whatever a layer takes and wherever its weights are: [orders].

    `slowest_share` and `fullest_share` are fractions of the blocks: those of the slowest and of
    the fullest stage; `end_shares` [ends, orders] those of the first and the last stage, which
    have a layer less where the layers do not divide: sensible splits count the embedding and the
    head as layers (70 and 2 on 12 stages: BLOOM; 126 and 2 on 16: Llama 3, arXiv 2407.21783,
    section 3.3.2). `in_flight` [ends, orders] are the micro-batches whose activations the
    first and the last stage keep, `messages` those a step to its neighbours.
    """

    devices: Array
    stages: Array
    schedule: NDArray[np.int64]
    virtual: Array
    micro_batches: Array
    slowest_share: Array
    fullest_share: Array
    end_shares: Array
    in_flight: Array
    messages: Array


def step_columns(work: Work, plan: PlanColumns, model: ModelColumns, rates: Rates) -> StepColumns:
    """Seconds of one optimizer step, by cause."""
    return compose_step(
        layer_columns(work, plan, rates),
        layout_columns(plan, model, rates),
        order_columns(plan, model),
        plan.recomputed,
        rates,
    )


def layer_columns(work: Work, plan: PlanColumns, rates: Rates) -> LayerColumns:
    """Work meets rates. Of the plan only levers that are part of the layer key matter.

    The host launches ahead of the device through a whole micro-batch, so what counts is the
    longer of all launches and all the device does, messages included: a device that waits for
    its host in the forward pass catches up in the backward.
    """
    fabric = fabric_of(rates)
    gemm, attention, stream, launch = _compute_s(work, plan, rates)
    compute = gemm + attention + stream
    tensor = _exposed_s(compute, _tensor_s(work, plan, fabric), rates.tensor_overlap)
    context = _exposed_s(attention, _context_s(work, plan, fabric), rates.tensor_overlap)
    expert = _exposed_s(compute, _expert_s(work, plan, rates, fabric), rates.expert_overlap)
    busy = compute + tensor + context + expert

    def once(times: Array) -> Array:
        return times[:, FORWARD] + times[:, BACKWARD]

    waits = _exposed_s(once(busy), once(launch), rates.launch_overlap)
    once_s = once(busy) + waits
    with_again = [
        overlapped_s(
            once(busy) + busy[:, phase], once(launch) + launch[:, phase], rates.launch_overlap
        )
        for phase in (RECOMPUTED, REATTENDED)
    ]
    launched_forward = launch[:, FORWARD] / np.maximum(once(launch), _NO_TIME_S)
    return LayerColumns(
        parts_s=np.stack(
            [*map(once, (gemm, attention, stream)), waits, *map(once, (tensor, context, expert))]
        ),
        once_s=once_s,
        forward_s=busy[:, FORWARD] + waits * launched_forward,
        weight_s=gemm[:, FORWARD],
        again_s=np.stack(with_again) - once_s,
        saved_bytes=work.saved_bytes,
        inputs_bytes=work.inputs_bytes[1],
        boundary_bytes=work.boundary_bytes,
    )


def order_columns(plan: PlanColumns, model: ModelColumns) -> OrderColumns:
    """Of the plan only degrees, schedule and micro-batch matter."""
    chunks = plan.pipeline * plan.virtual
    micros = plan.micro_batches
    ends = (np.zeros_like(plan.pipeline), plan.pipeline - 1.0)
    most = np.ceil(model.layers / chunks)
    spare = chunks * most - model.layers
    slowest_share = most * plan.virtual / model.layers
    return OrderColumns(
        devices=plan.devices,
        stages=plan.pipeline,
        schedule=plan.schedule,
        virtual=plan.virtual,
        micro_batches=micros,
        slowest_share=slowest_share,
        end_shares=slowest_share - np.stack([spare >= 2.0, spare >= 1.0]) / model.layers,
        fullest_share=np.ceil(model.layers / plan.pipeline) / model.layers,
        in_flight=np.stack(
            [
                schedule.in_flight(
                    plan.schedule,
                    stages=plan.pipeline,
                    micro_batches=micros,
                    virtual=plan.virtual,
                    stage=stage,
                )
                for stage in ends
            ]
        ),
        messages=schedule.messages(plan.schedule, plan.pipeline, micros, plan.virtual),
    )


def compose_step(
    layers: LayerColumns,
    layout: LayoutColumns,
    order: OrderColumns,
    recomputed: Array,
    rates: Rates,
) -> StepColumns:
    """The step of each plan from the times of its layers, its layout and its order. Of the rates
    only those that no precision changes matter, so one row of them serves all plans of a pool."""
    stage = _Stage(order)
    micros = order.micro_batches
    again = recomputed * layers.again_s[0] + (1.0 - recomputed) * layers.again_s[1]
    both = layers.once_s + again
    micro_s = stage.slowest(both)
    forward_s = stage.others(layers.forward_s)
    parts = dict(zip(LAYER_PARTS, micros * stage.slowest(layers.parts_s), strict=True))
    parts["recompute"] = micros * stage.slowest(again)
    parts["pipeline bubble"] = schedule.bubble_s(
        order.schedule,
        stages=order.stages,
        micro_batches=micros,
        virtual=order.virtual,
        forward_s=forward_s,
        backward_s=stage.others(both) - forward_s,
        weight_s=stage.others(layers.weight_s),
    )
    hop_s = layout.hop_s + layers.boundary_bytes * layout.hop_s_per_byte
    parts["pipeline messages"] = (1.0 - rates.pipeline_overlap) * order.messages * hop_s
    # What a micro-batch hides every time, it cannot hide once more for the step's exchange.
    spare_s = np.maximum(micro_s - layout.every_s, 0.0)
    parts["data messages"] = _exposed_s(
        spare_s, layout.exchange_s, rates.data_overlap
    ) + micros * _exposed_s(micro_s, layout.every_s, rates.data_overlap)
    parts["optimizer"] = layout.optimizer_s + (micros - 1.0) * layout.accumulate_s
    parts["fixed"] = rates.step_s * np.ones_like(micros)
    total = sum(parts.values())
    parts["jitter"] = total * layout.jitter_fraction
    messages = sum(parts[name] for name in PARTS if name.endswith("messages"))
    return StepColumns(
        parts_s={name: parts[name] for name in PARTS},
        step_time_s=np.asarray(total + parts["jitter"]),
        messages_s=np.asarray(messages),
    )


def _compute_s(work: Work, plan: PlanColumns, rates: Rates) -> tuple[Array, Array, Array, Array]:
    """[segments, phases, rows] of products, attention, streaming and launches."""
    narrow = 1.0 / rates.narrow_flop_per_s
    wide = 1.0 / rates.wide_flop_per_s
    blocks = np.where(work.narrow_flop.sum(axis=(0, 1)) > 0, narrow, wide)
    gemm = (
        work.narrow_flop * narrow
        + work.wide_flop * wide
        + work.expert_flop * ((rates.expert_imbalance - 1.0) * blocks)
        + work.ragged_flop * ((rates.ragged_slowdown - 1.0) * blocks)
        + work.wave_depth * (rates.wave_elements * blocks)
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


def slowest_stage(by_segment: Array, stages: Array, share: Array, ends: Array) -> Array:
    """Of what the segments take [.., segments, rows], the slowest stage's [.., rows].

    `share` of the blocks are in the fullest stage, `ends` [2, rows] of them in the first and last.
    """
    first, block, last = by_segment[..., 0, :], by_segment[..., 1, :], by_segment[..., 2, :]
    apart = np.maximum(ends[0] * block + first, ends[1] * block + last)
    apart = np.maximum(apart, np.where(stages > 2, share, 0.0) * block)
    return np.asarray(np.where(stages <= 1, block + first + last, apart))


class _Stage:
    """The slowest pipeline stage: the fullest in the middle, or an end with the input's or the
    output's rows."""

    def __init__(self, order: OrderColumns) -> None:
        self.share = order.slowest_share
        self.ends = order.end_shares
        self.stages = order.stages

    def slowest(self, by_segment: Array) -> Array:
        """[.., segments, rows] -> [.., rows]."""
        return slowest_stage(by_segment, self.stages, self.share, self.ends)

    def others(self, by_segment: Array) -> Array:
        """Mean of the other stages: they fill and drain the pipeline about the slowest one."""
        rest = by_segment.sum(axis=-2) - self.slowest(by_segment)
        return np.asarray(np.maximum(rest, 0.0) / np.maximum(self.stages - 1.0, 1.0))
