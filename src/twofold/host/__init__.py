"""This machine: what it has, how busy others keep it, what its energy counters say."""

from twofold.host.description import describe_host, git_commit
from twofold.host.energy import (
    EnergyCounter,
    EnergyReading,
    EnergySource,
    find_energy_source,
    modelled_power_w,
)
from twofold.host.limits import (
    available_memory_bytes,
    cpu_quota,
    memory_limit_bytes,
    usable_cores,
    visible_cores,
)
from twofold.host.load import (
    Contention,
    CpuTimes,
    Snapshot,
    contention,
    observe,
    too_busy,
    wait_until_quiet,
    watch,
)

__all__ = [
    "Contention",
    "CpuTimes",
    "EnergyCounter",
    "EnergyReading",
    "EnergySource",
    "Snapshot",
    "available_memory_bytes",
    "contention",
    "cpu_quota",
    "describe_host",
    "find_energy_source",
    "git_commit",
    "memory_limit_bytes",
    "modelled_power_w",
    "observe",
    "too_busy",
    "usable_cores",
    "visible_cores",
    "wait_until_quiet",
    "watch",
]
