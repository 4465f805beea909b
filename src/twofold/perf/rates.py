"""Speeds: what a device and its links reach of what they are sold for.

A step is priced as FLOP / rate + bytes / bandwidth + calls x overhead: the additive form of the
roofline, at most twice its maximum, in which small products are slow for the two reasons they
are slow on hardware (operands and launches) without a shape table. Per die: an efficiency of
products in 16 bits, of narrow ones, of attention and of memory, and an overhead a call; per
fabric an efficiency and a latency; the rest is shared. `efficiency` has the fitted values.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Reached speeds, scalars or a column each: [rows]. One way, per device.

    `gemm_byte_share` of the operand traffic of products is not hidden under their arithmetic.
    Products that no tile divides take `ragged_slowdown` times as long; every product ends in a
    partly empty wave of tiles, `wave_elements` results too few on the mean. Overlaps are
    fractions of the shorter of compute and communication that is hidden. Of the operator
    table's streaming, fused software does `fused_stream`; software of before fused attention
    streams `unfused_stream` of it and launches `unfused_calls` times as much. An update runs
    through long rows of parameters: it takes `update_stream` of what its bytes would take
    otherwise. `jitter` slows a step by that fraction per doubling of the machines.
    """

    narrow_flop_per_s: Array
    wide_flop_per_s: Array
    attention_flop_per_s: Array
    bytes_per_s: Array
    call_s: Array
    gemm_byte_share: Array
    launch_overlap: Array
    host_bytes_per_s: Array
    scale_up_domain: Array
    up_bytes_per_s: Array
    up_latency_s: Array
    out_bytes_per_s: Array
    out_latency_s: Array
    mesh_pair_bytes_per_s: Array
    torus_axes: Array
    tensor_overlap: Array
    expert_overlap: Array
    data_overlap: Array
    pipeline_overlap: Array
    expert_imbalance: Array
    ragged_slowdown: Array
    wave_elements: Array
    fused_stream: Array
    unfused_stream: Array
    unfused_calls: Array
    update_stream: Array
    step_s: Array
    jitter: Array


@dataclass(frozen=True, slots=True, kw_only=True)
class HardwareColumns:
    """What the hardware is sold for, scalars or columns: dense peaks, one way, per device.

    `narrow_flop_per_s` is the peak of the precision the products run in, `age_months` how long
    the die had been on the market: its software matures.
    """

    narrow_flop_per_s: Array
    wide_flop_per_s: Array
    bytes_per_s: Array
    host_bytes_per_s: Array
    scale_up_domain: Array
    up_bytes_per_s: Array
    out_bytes_per_s: Array
    mesh_pair_bytes_per_s: Array
    torus_axes: Array
    age_months: Array


@dataclass(frozen=True, slots=True, kw_only=True)
class EfficiencyColumns:
    """Reached over sold, scalars or columns; overheads and latencies in seconds. `pace` is a
    site's own time over the fit's (`calibrate --from`), 1 where nobody measured."""

    narrow: Array
    wide: Array
    attention: Array
    memory: Array
    call_s: Array
    up: Array
    up_latency_s: Array
    out: Array
    out_latency_s: Array
    pace: Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """What all devices have in common (see `Rates`). A die's software starts out reaching
    1 - `era_loss` of what it ends up reaching, and closes that gap by half every
    `era_half_months`."""

    gemm_byte_share: float
    launch_overlap: float
    tensor_overlap: float
    expert_overlap: float
    data_overlap: float
    pipeline_overlap: float
    expert_imbalance: float
    ragged_slowdown: float
    wave_elements: float
    fused_stream: float
    unfused_stream: float
    unfused_calls: float
    update_stream: float
    step_s: float
    jitter: float
    era_loss: float
    era_half_months: float


def reached(hardware: HardwareColumns, efficiency: EfficiencyColumns, shared: Shared) -> Rates:
    """Rates of each row: what is sold times what is reached at that age."""
    ripe = 1.0 - shared.era_loss * 0.5 ** (
        np.maximum(hardware.age_months, 0.0) / shared.era_half_months
    )
    ripe = ripe / efficiency.pace
    one = np.ones_like(hardware.bytes_per_s)
    return Rates(
        narrow_flop_per_s=hardware.narrow_flop_per_s * efficiency.narrow * ripe,
        wide_flop_per_s=hardware.wide_flop_per_s * efficiency.wide * ripe,
        attention_flop_per_s=hardware.wide_flop_per_s * efficiency.attention * ripe,
        bytes_per_s=hardware.bytes_per_s * efficiency.memory * ripe,
        call_s=efficiency.call_s / ripe,
        gemm_byte_share=shared.gemm_byte_share * one,
        launch_overlap=shared.launch_overlap * one,
        host_bytes_per_s=hardware.host_bytes_per_s * one,
        scale_up_domain=hardware.scale_up_domain * one,
        up_bytes_per_s=hardware.up_bytes_per_s * efficiency.up / efficiency.pace,
        up_latency_s=efficiency.up_latency_s * efficiency.pace * one,
        out_bytes_per_s=hardware.out_bytes_per_s * efficiency.out / efficiency.pace,
        out_latency_s=efficiency.out_latency_s * efficiency.pace * one,
        mesh_pair_bytes_per_s=hardware.mesh_pair_bytes_per_s * efficiency.up / efficiency.pace,
        torus_axes=hardware.torus_axes * one,
        tensor_overlap=shared.tensor_overlap * one,
        expert_overlap=shared.expert_overlap * one,
        data_overlap=shared.data_overlap * one,
        pipeline_overlap=shared.pipeline_overlap * one,
        expert_imbalance=shared.expert_imbalance * one,
        ragged_slowdown=shared.ragged_slowdown * one,
        wave_elements=shared.wave_elements * one,
        fused_stream=shared.fused_stream * one,
        unfused_stream=shared.unfused_stream * one,
        unfused_calls=shared.unfused_calls * one,
        update_stream=shared.update_stream * one,
        step_s=shared.step_s * efficiency.pace * one,
        jitter=shared.jitter * one,
    )


def take_rates(rates: Rates, index: NDArray[np.intp]) -> Rates:
    """The rates of each plan by the pool and precision it has."""
    return Rates(**{f.name: np.take(getattr(rates, f.name), index) for f in fields(Rates)})


def overlapped_s(compute_s: Array, communication_s: Array, overlap: Array) -> Array:
    """T = max(c, m) + (1 - w) min(c, m): w = 1 hides the shorter, w = 0 runs them in turn."""
    longer = np.maximum(compute_s, communication_s)
    return longer + (1.0 - overlap) * np.minimum(compute_s, communication_s)
