"""What running machines take by the second: money, power, carbon, whether they are used or not."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from twofold.fleet import Pool
from twofold.perf.carbon import embodied_kgco2e, operational_kgco2e
from twofold.perf.cost import SECONDS_PER_HOUR, rent_usd
from twofold.perf.energy import device_power_w, power_range_w
from twofold.perf.serving import PART_USE


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """By the second; None where a figure of the machines is not known."""

    usd_per_s: float | None
    power_w: float | None
    kgco2e_per_s: float | None

    def __add__(self, other: Running) -> Running:
        return Running(
            usd_per_s=_sum(self.usd_per_s, other.usd_per_s),
            power_w=_sum(self.power_w, other.power_w),
            kgco2e_per_s=_sum(self.kgco2e_per_s, other.kgco2e_per_s),
        )


def running(pool: Pool, devices: int, busy: Mapping[str, float]) -> Running:
    """Of the whole machines that hold so many devices.

    `busy` are the shares of the time that a device spends in each part of a serving step; what is
    left of 1 it idles, as do the devices of the machines that the plan does not use. Power is at
    the facility's meter, modelled as in `energy`; carbon has the embodied share as far as known.
    """
    node = pool.node
    machines = math.ceil(devices / node.num_accelerators)
    usd = pool.usd_per_node_hour
    power_w = _power_w(pool, devices, machines, busy)
    carbon = None
    if power_w is not None and pool.grid_kgco2e_per_kwh is not None:
        device, board = node.accelerator.embodied_kgco2e, node.embodied_kgco2e
        made = (board.value if board else 0.0) + node.num_accelerators * (
            device.value if device else 0.0
        )
        carbon = float(
            operational_kgco2e(power_w, 1.0, pool.grid_kgco2e_per_kwh.value)
            + embodied_kgco2e(made * machines, 1.0 / SECONDS_PER_HOUR)
        )
    return Running(
        usd_per_s=None if usd is None else float(rent_usd(usd.value, machines, 1.0)),
        power_w=power_w,
        kgco2e_per_s=carbon,
    )


def _power_w(pool: Pool, devices: int, machines: int, busy: Mapping[str, float]) -> float | None:
    power_w = power_range_w(pool.node.accelerator)
    if power_w is None:
        return None
    idle_w, max_w = power_w
    shares = dict.fromkeys(("tensor", "memory", "link", "idle"), 0.0)
    for part, share in busy.items():
        shares[PART_USE[part]] += share
    used_w = float(
        device_power_w(idle_w, max_w, shares["tensor"], shares["memory"], shares["link"])
    )
    rest = machines * pool.node.num_accelerators - devices
    overhead = pool.node.power_overhead_w
    it_w = devices * used_w + rest * idle_w + machines * (overhead.value if overhead else 0.0)
    return it_w * (pool.pue.value if pool.pue else 1.0)


def _sum(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a + b
