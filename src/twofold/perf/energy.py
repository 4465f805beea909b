"""Energy from power ranges: modelled, so never proof of a saving.

A device's power follows what it is doing, not its label: models that bill the thermal design
power err by 27-37 % (Newkirk et al. 2025, arXiv 2506.14551). Everything here is good to
`SPREAD` either way and bears the grade "modelled".
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from twofold.fleet import Accelerator

Array = NDArray[np.float64]
Column = Array | float

SPREAD = 0.25
"""Relative half-width to print beside a modelled energy."""

TENSOR_SHARE, MEMORY_SHARE, LINK_SHARE = 0.97, 0.60, 0.35
"""Share of a device's range from idle to maximum that it draws in matrix products, in memory
traffic and while it waits in a message. Only their sum is pinned by a measurement: an 8 x H100
node draws 76 % of its rated 10.2 kW in intensive training (arXiv 2506.14551); with
`OVERHEAD_DRAWN` of the rest, 70 W idle and 80 / 12 / 6 % of the time in products, memory and
messages (assumed), these shares give that. How it is split among the three is assumed."""

OVERHEAD_DRAWN = 0.61
"""Share of (rated node power - devices' maximum) that is drawn: the same node never drew more
than 8.4 kW with its eight devices near full utilisation, so (8.4 - 5.6) / (10.2 - 5.6) (Latif
et al. 2025, arXiv 2412.08602)."""


IDLE_FRACTION = 0.1
"""Idle power over maximum where a device's is not known: A100, H100 and MI300X idle at 8-13 %."""


class EnergyParts(NamedTuple):
    """Joules per device that add up to a step's energy at the facility's meter. `static` is the
    device's idle power, `node` all else in its machine, `facility` cooling and conversion."""

    static_j: Array
    tensor_j: Array
    memory_j: Array
    link_j: Array
    node_j: Array
    facility_j: Array


def power_range_w(accelerator: Accelerator) -> tuple[float, float] | None:
    """Idle and maximum power of a device; None where the maximum is not known."""
    if accelerator.power_max_w is None:
        return None
    max_w = accelerator.power_max_w.value
    idle = accelerator.power_idle_w
    return (idle.value if idle else IDLE_FRACTION * max_w), max_w


def device_power_w(
    idle_w: Column,
    max_w: Column,
    tensor_fraction: Column,
    memory_fraction: Column,
    link_fraction: Column,
) -> Array:
    """P = P_idle + (P_max - P_idle) min(1, a u_tensor + b u_memory + c u_link).

    u are the fractions of the time in each; what is left is idle (bubbles, failures, stalls).
    Overlapped, they may sum to more than 1: the device is clipped at its cap. Coefficients and
    their calibration: `TENSOR_SHARE`. Valid for accelerators at stock clocks.
    """
    use = TENSOR_SHARE * tensor_fraction + MEMORY_SHARE * memory_fraction
    use = np.minimum(1.0, use + LINK_SHARE * link_fraction)
    return np.asarray(idle_w + (max_w - idle_w) * use)


def node_overhead_w(rated_node_w: Column, device_max_w: Column, num_devices: Column) -> Array:
    """P = 0.61 (P_rated - n P_max): processors, memory, fans, adapters as drawn, not as rated.

    See `OVERHEAD_DRAWN`. One machine type was measured; others are taken as alike.
    """
    rated_w = np.asarray(rated_node_w - num_devices * device_max_w)
    return np.asarray(OVERHEAD_DRAWN * np.maximum(rated_w, 0.0))


def step_energy_j(
    step_s: Column, device_power_w: Column, overhead_w_per_device: Column, pue: Column
) -> Array:
    """E = T (P_dev + P_node / n) PUE: joules per device and step at the facility's meter.

    `overhead_w_per_device` is the node's power beside its devices over their number. For a whole
    run multiply by devices and steps, and divide by the goodput (lost time is powered too).
    """
    return np.asarray(step_s * (device_power_w + overhead_w_per_device) * pue)


def energy_parts_j(
    step_s: Column,
    *,
    idle_w: Column,
    max_w: Column,
    tensor_fraction: Column,
    memory_fraction: Column,
    link_fraction: Column,
    overhead_w_per_device: Column,
    pue: Column,
    rented: Column = 1.0,
) -> EnergyParts:
    """`step_energy_j` by cause. Where the device is clipped, its three causes shrink alike.

    `rented` are the devices of the machines that run over those in use: the others idle, and their
    share of the machine is charged to those in use.
    """
    use = (
        TENSOR_SHARE * np.asarray(tensor_fraction),
        MEMORY_SHARE * np.asarray(memory_fraction),
        LINK_SHARE * np.asarray(link_fraction),
    )
    range_j = (max_w - idle_w) * step_s / np.maximum(1.0, use[0] + use[1] + use[2])
    rented_s = np.asarray(rented * step_s)
    static, node = idle_w * rented_s, overhead_w_per_device * rented_s
    tensor, memory, link = (range_j * share for share in use)
    it = static + tensor + memory + link + node
    return EnergyParts(static, tensor, memory, link, node, np.asarray(it * (pue - 1.0)))


def modelled_energy_j(accelerator: Accelerator, threads: Array, busy_s: Array) -> Array | None:
    """E = (P_idle + u (P_max - P_idle)) t, with u the share of threads kept busy.

    The linear model of the Cloud Carbon Footprint coefficients; estimators of this kind differ
    by 2x at best and 10x at worst. None where the accelerator's power is not known.
    """
    if accelerator.power_idle_w is None or accelerator.power_max_w is None:
        return None
    share = np.minimum(1.0, threads / accelerator.threads)
    idle_w, max_w = accelerator.power_idle_w.value, accelerator.power_max_w.value
    power_w: Array = idle_w + share * (max_w - idle_w)
    return power_w * busy_s
