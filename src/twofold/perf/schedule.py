"""Pipeline schedules: what a pipeline costs in idle time, kept activations and messages.

A schedule is a record of three functions; to add one, add a record and its name in `plan`.
Symbols: p stages, m micro-batches a step, v model chunks a device, and F, B, W seconds of one
micro-batch on one device: forward, whole backward, and the weight gradients' part of backward.
A step takes m (F + B) + bubble. Columns broadcast; a single stage has no bubble and no messages.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from twofold.plan import Schedule

Array = NDArray[np.float64]
Column = Array | float
Codes = NDArray[np.integer] | int


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineSchedule:
    """`bubble_s(p, m, v, F, B, W)`, `in_flight(p, m, v, stage)`, `messages(p, m, v)`."""

    bubble_s: Callable[[Column, Column, Column, Column, Column, Column], Array]
    in_flight: Callable[[Column, Column, Column, Column], Array]
    messages: Callable[[Column, Column, Column], Array]


def _fill_drain_bubble_s(
    p: Column, m: Column, v: Column, forward_s: Column, backward_s: Column, weight_s: Column
) -> Array:
    """(p - 1) (F + B), for GPipe and 1F1B alike (Narayanan et al. 2021, arXiv 2104.04473, 2.2)."""
    return np.asarray((p - 1.0) * (forward_s + backward_s))


def _interleaved_bubble_s(
    p: Column, m: Column, v: Column, forward_s: Column, backward_s: Column, weight_s: Column
) -> Array:
    """(p - 1) (F + B) / v (Narayanan et al. 2021, section 2.2). m is a multiple of p there."""
    return np.asarray((p - 1.0) * (forward_s + backward_s) / v)


def _zb_h1_bubble_s(
    p: Column, m: Column, v: Column, forward_s: Column, backward_s: Column, weight_s: Column
) -> Array:
    """(p - 1) (F + (B - W) - W), at least 0: weight gradients fill the drain (Qi et al. 2023,
    arXiv 2401.10241, table 2, where B is the input gradients' part alone).

    Published for m >= p. With fewer micro-batches there are fewer weight gradients to fill with:
    min(m - 1, p - 1) W, which is exact at m = 1, where only p F + p (B - W) + W is left.
    """
    steps = p - 1.0
    filled = np.minimum(np.maximum(np.asarray(m) - 1.0, 0.0), steps)
    idle = steps * (forward_s + backward_s - weight_s) - filled * weight_s
    return np.asarray(np.maximum(idle, 0.0))


def _all_in_flight(p: Column, m: Column, v: Column, stage: Column) -> Array:
    """m: GPipe runs every forward pass before the first backward (Huang et al. 2019, 2.3)."""
    return np.asarray(m + 0.0 * (p + stage))


def _warm_up_in_flight(p: Column, m: Column, v: Column, stage: Column) -> Array:
    """min(m, p - stage), counted from 0 (Narayanan et al. 2021, section 2.2.1)."""
    return np.asarray(np.minimum(m, np.maximum(np.asarray(p) - stage, 1.0)))


def _interleaved_in_flight(p: Column, m: Column, v: Column, stage: Column) -> Array:
    """min(m v, 2 (p - stage - 1) + (v - 1) p + 1) / v: chunks run forward before the first
    backward (Megatron-LM's interleaved schedule). At the first stage and m >= p that is
    p (1 + (p - 1) / (p v)), Korthikanti et al. 2023, arXiv 2205.05198, section 4.2.3."""
    after = np.maximum(np.asarray(p) - stage - 1.0, 0.0)
    return np.asarray(np.minimum(m * v, 2.0 * after + (v - 1.0) * p + 1.0) / v)


def _equal_in_flight(p: Column, m: Column, v: Column, stage: Column) -> Array:
    """min(m, p) at every stage: 1F1B's peak, which ZB-H1 keeps and evens out by delaying weight
    gradients (Qi et al. 2023, section 2.1 and table 2). Their operands are a little less than
    the activations counted here, so this is an upper bound."""
    return np.asarray(np.minimum(m, p) + 0.0 * np.asarray(stage))


def _messages(p: Column, m: Column, v: Column) -> Array:
    """2 m: every micro-batch's activations go on and its gradients go back, once a stage."""
    return np.asarray(2.0 * m * (np.asarray(p) > 1))


def _interleaved_messages(p: Column, m: Column, v: Column) -> Array:
    """2 m v: once a model chunk (Narayanan et al. 2021, section 2.2.2)."""
    return np.asarray(2.0 * m * v * (np.asarray(p) > 1))


SCHEDULES: dict[Schedule, PipelineSchedule] = {
    "gpipe": PipelineSchedule(
        bubble_s=_fill_drain_bubble_s, in_flight=_all_in_flight, messages=_messages
    ),
    "1f1b": PipelineSchedule(
        bubble_s=_fill_drain_bubble_s, in_flight=_warm_up_in_flight, messages=_messages
    ),
    "interleaved": PipelineSchedule(
        bubble_s=_interleaved_bubble_s,
        in_flight=_interleaved_in_flight,
        messages=_interleaved_messages,
    ),
    "zb-h1": PipelineSchedule(
        bubble_s=_zb_h1_bubble_s, in_flight=_equal_in_flight, messages=_messages
    ),
}

CODES: dict[Schedule, int] = {name: code for code, name in enumerate(get_args(Schedule))}
"""Schedules as integers, in the order in which `plan` lists them."""


def bubble_s(
    code: Codes,
    *,
    stages: Column,
    micro_batches: Column,
    virtual: Column,
    forward_s: Column,
    backward_s: Column,
    weight_s: Column,
) -> Array:
    """Seconds a step that a device waits for the pipeline to fill and drain."""
    return _by_schedule(
        code,
        lambda s: s.bubble_s(stages, micro_batches, virtual, forward_s, backward_s, weight_s),
    )


def in_flight(
    code: Codes, *, stages: Column, micro_batches: Column, virtual: Column, stage: Column = 0.0
) -> Array:
    """Micro-batches whose activations `stage` (from 0) keeps at its peak; fractions are chunks."""
    return _by_schedule(code, lambda s: s.in_flight(stages, micro_batches, virtual, stage))


def messages(code: Codes, stages: Column, micro_batches: Column, virtual: Column) -> Array:
    """Messages a step that a device sends to its neighbours: activations on, gradients back."""
    return _by_schedule(code, lambda s: s.messages(stages, micro_batches, virtual))


def _by_schedule(code: Codes, value: Callable[[PipelineSchedule], Array]) -> Array:
    """The value under each row's schedule; only schedules that occur are evaluated."""
    codes = np.asarray(code)
    result: Array | None = None
    for name, number in CODES.items():
        chosen = codes == number
        if not chosen.any():
            continue
        here = value(SCHEDULES[name])
        result = here if result is None else np.where(chosen, here, result)
    assert result is not None, "no row has a known schedule"
    return result
