"""Energy: by counter where the machine has one that may be read, else a range, else unknown.

Grades: `measured` (a counter of this machine), `host-attributed` (a counter that a hypervisor
hands in), `modelled` (coefficients), `unknown`. A modelled joule only restates busy time: it is
never proof of a saving.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

EnergyGrade = Literal["measured", "host-attributed", "modelled", "unknown"]

SHORTEST_WINDOW_S = 1.0
"""The counters are updated every 0.1 s or less often; a shorter window may read zero."""
HIGHEST_POWER_W = 500.0
"""Of one processor package: decides after which time a wrapped counter is ambiguous."""

VCPU_POWER_W: dict[str, tuple[float, float]] = {
    "AMD EPYC 2nd generation": (0.474, 1.693),
    "AMD EPYC 3rd generation": (0.456, 1.957),
    "AMD EPYC 4th generation": (0.739, 2.282),
    "Intel Ice Lake": (0.767, 3.758),
    "Intel Sapphire Rapids": (1.036, 4.160),
    "Intel Emerald Rapids": (0.814, 4.482),
    "Intel Granite Rapids": (0.582, 2.527),
}
"""(idle, full) W per virtual core. Source: Cloud Carbon Footprint, ccf-coefficients @b0032d9
(2026-04). Its row for EPYC 5th generation (3.68, 8.96) is an outlier and left out."""
FULL_VCPU_W = 4.0
"""Fallback of CodeCarbon @b05965e (2026-08), per thread at full load."""
MEMORY_W_PER_BYTE = 0.392e-9
"""0.000392 kWh per GB and hour (ccf-coefficients)."""
MEMORY_GUESS_W = 20.0
"""Four modules of 5 W, CodeCarbon's guess for a server."""

POWERCAP = Path("/sys/class/powercap")


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergyReading:
    """Raw counts, one a domain, at a moment of the monotonic clock."""

    time_s: float
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergyCounter:
    """A cumulative counter of one or more domains (processor packages, GPUs).

    `ranges` are the counts after which a domain starts again at zero, None if it does not.
    `scope` says whose energy it is: a counter sees all that runs on the device, not only us.
    """

    source: str
    scope: str
    grade: EnergyGrade
    read_counts: Callable[[], tuple[int, ...]]
    ranges: tuple[int | None, ...]
    joule_per_count: float

    def read(self) -> EnergyReading:
        """Raises OSError where the counter can no longer be read."""
        return EnergyReading(time_s=time.monotonic(), counts=self.read_counts())

    def between_j(self, before: EnergyReading, after: EnergyReading) -> float | None:
        """Energy of the window; None if it is too short to be seen, or so long that a counter
        may have wrapped twice: then read more often and add."""
        window_s = after.time_s - before.time_s
        if window_s < SHORTEST_WINDOW_S:
            return None
        total = 0
        for first, last, span in zip(before.counts, after.counts, self.ranges, strict=True):
            if span is not None and window_s * HIGHEST_POWER_W > span * self.joule_per_count:
                return None
            if last < first and span is None:
                return None  # it was reset
            total += last - first if last >= first else last - first + (span or 0)
        return total * self.joule_per_count


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergySource:
    """The counter to use, or None and why there is none."""

    counter: EnergyCounter | None
    grade: EnergyGrade
    why: str


def find_energy_source(
    device: Literal["cpu", "cuda"], *, virtual: bool = False, powercap: Path = POWERCAP
) -> EnergySource:
    """The counter of the device that does the work. `virtual` marks a guest, whose processor
    counters are those that its host hands in."""
    if device == "cuda":
        return _nvml_source(os.environ)
    return _rapl_source(powercap, virtual=virtual)


def modelled_power_w(vcpus: float, memory_bytes: float, utilisation: float) -> tuple[float, float]:
    """(low, high) W of a virtual machine: vcpus · [Pmin + u · (Pmax - Pmin)] + memory.

    The bounds are the least and the most that the published coefficients give, since the
    processor under a guest is seldom known; they differ by 2x at best and 10x at worst.
    Range of validity: server processors of 2019-2025, `utilisation` from 0 to 1.
    """
    utilisation = min(1.0, max(0.0, utilisation))
    per_core_w = [idle + utilisation * (full - idle) for idle, full in VCPU_POWER_W.values()]
    memory_w = memory_bytes * MEMORY_W_PER_BYTE
    low_w = vcpus * min(per_core_w) + memory_w
    high_w = vcpus * max(*per_core_w, FULL_VCPU_W * utilisation) + max(memory_w, MEMORY_GUESS_W)
    return low_w, high_w


# --- RAPL through powercap (Intel; AMD since Linux 5.8)


def _rapl_source(powercap: Path, *, virtual: bool) -> EnergySource:
    zones = _rapl_zones(powercap)
    if not zones:
        return _none(f"no processor energy counter ({powercap} has no RAPL zone)")
    files = [zone / "energy_uj" for zone in zones]
    try:
        counts = _read_files(files)
        ranges = tuple(int((zone / "max_energy_range_uj").read_text()) for zone in zones)
    except PermissionError:
        return _none("the processor's energy counter may be read by root only")
    except (OSError, ValueError) as error:
        return _none(f"the processor's energy counter cannot be read: {error}")
    assert len(counts) == len(ranges)
    names = ", ".join((zone / "name").read_text().strip() for zone in zones)
    counter = EnergyCounter(
        source=f"RAPL ({names})",
        scope="the whole processor, with all that runs on it",
        grade="host-attributed" if virtual else "measured",
        read_counts=lambda: _read_files(files),
        ranges=ranges,
        joule_per_count=1e-6,
    )
    return EnergySource(counter=counter, grade=counter.grade, why=counter.source)


def _rapl_zones(powercap: Path) -> list[Path]:
    """Packages and their memory, which is not part of the package. Cores and graphics are inside
    the package and `psys` holds it, so they would be counted twice."""
    zones = []
    for zone in sorted(powercap.glob("intel-rapl:*")):
        try:
            name = (zone / "name").read_text().strip()
        except OSError:
            continue
        if name.startswith("package") or name == "dram":
            zones.append(zone)
    return zones


def _read_files(files: list[Path]) -> tuple[int, ...]:
    return tuple(int(file.read_text()) for file in files)


# --- NVML (NVIDIA, Volta or newer), no privilege needed


def _nvml_source(environment: Mapping[str, str]) -> EnergySource:
    import ctypes

    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return _none("no NVIDIA driver library (libnvidia-ml.so.1)")
    if nvml.nvmlInit_v2() != 0:
        return _none("the NVIDIA driver does not answer")
    handles = _nvml_handles(nvml, environment.get("CUDA_VISIBLE_DEVICES"))

    def read_counts() -> tuple[int, ...]:
        counts = []
        for handle in handles:
            millijoule = ctypes.c_ulonglong()
            status = nvml.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(millijoule))
            if status != 0:
                raise OSError(f"NVML answers {status}")
            counts.append(millijoule.value)
        return tuple(counts)

    try:
        counts = read_counts()
    except OSError as error:
        return _none(f"this GPU has no energy counter that may be read: {error}")
    if not counts:
        return _none("no NVIDIA GPU is visible")
    counter = EnergyCounter(
        source=f"NVML energy counter of {len(counts)} GPU{'s' if len(counts) > 1 else ''}",
        scope="the GPUs alone, without the machine around them",
        grade="measured",
        read_counts=read_counts,
        ranges=(None,) * len(counts),
        joule_per_count=1e-3,
    )
    return EnergySource(counter=counter, grade=counter.grade, why=counter.source)


def _nvml_handles(nvml: Any, visible: str | None) -> list[Any]:
    """Handles of the GPUs that CUDA_VISIBLE_DEVICES leaves, by index or by UUID; all without it."""
    import ctypes

    count = ctypes.c_uint()
    if nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)) != 0:
        return []
    names = ",".join(map(str, range(count.value))) if visible is None else visible
    handles = []
    for name in names.replace(" ", "").split(",") if names else ():
        handle = ctypes.c_void_p()
        if name.isdigit():
            status = nvml.nvmlDeviceGetHandleByIndex_v2(int(name), ctypes.byref(handle))
        else:
            status = nvml.nvmlDeviceGetHandleByUUID(name.encode(), ctypes.byref(handle))
        if status != 0:
            break  # as CUDA does: the first invalid entry ends the list
        handles.append(handle)
    return handles


def _none(why: str) -> EnergySource:
    return EnergySource(counter=None, grade="unknown", why=why)
