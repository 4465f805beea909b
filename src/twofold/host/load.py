"""How busy the machine is with the work of others: watched, waited out, judged.

Wall time is what a proof claims, so contention is looked at and said; it is never divided out.
A figure that this system does not give is None.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from twofold.host.limits import usable_cores, visible_cores

QUIET_CORES = 0.3
"""Others may use this much of a core and the machine still counts as quiet."""
WIDEST_STEAL_FRACTION = 0.1
WIDEST_WALL_PER_CPU = 1.1
"""Wall over CPU time of a single-threaded, compute-bound probe: past this it waited for a core."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuTimes:
    """CPU seconds since boot over the visible cores; `own_s` is that of this process and of all
    its descendants, living or awaited."""

    busy_s: float
    steal_s: float
    total_s: float
    own_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """One look at the machine. `cpu` is None where the system does not show it."""

    time_s: float
    load: float | None
    cpu: CpuTimes | None
    visible_cores: int
    usable_cores: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Contention:
    """What happened between two looks, in cores' worth of CPU.

    `crowded_cores` is how much others took of what this process may use; where a quota leaves
    cores to others, their work there is no contention. `unknown` says why figures are None.
    """

    wall_s: float
    steal_fraction: float | None
    other_cores_busy: float | None
    own_cores_busy: float | None
    crowded_cores: float | None
    load: float | None
    unknown: str | None


def observe(proc: Path = Path("/proc")) -> Snapshot:
    """Look now. Costs a few milliseconds on Linux; elsewhere only the load is known."""
    cores = visible_cores()
    return Snapshot(
        time_s=time.monotonic(),
        load=_load(),
        cpu=_cpu_times(proc, cores),
        visible_cores=len(cores),
        usable_cores=usable_cores(),
    )


def contention(before: Snapshot, after: Snapshot) -> Contention:
    """What others did to this machine between two looks."""
    wall_s = after.time_s - before.time_s
    first, last = before.cpu, after.cpu
    if first is None or last is None:
        return _unknown(wall_s, after.load, "this system does not show what other processes use")
    total_s = last.total_s - first.total_s
    if total_s <= 0 or wall_s <= 0:
        return _unknown(wall_s, after.load, "the CPU counters of this system did not advance")
    own_s = max(0.0, last.own_s - first.own_s)
    others = max(0.0, last.busy_s - first.busy_s - own_s) / wall_s
    left_to_others = max(0.0, after.visible_cores - after.usable_cores)
    return Contention(
        wall_s=wall_s,
        steal_fraction=max(0.0, last.steal_s - first.steal_s) / total_s,
        other_cores_busy=others,
        own_cores_busy=own_s / wall_s,
        crowded_cores=max(0.0, others - left_to_others),
        load=after.load,
        unknown=None,
    )


def watch(window_s: float) -> Contention:
    """Sleep for the window and say what others did meanwhile."""
    before = observe()
    time.sleep(window_s)
    return contention(before, observe())


def wait_until_quiet(
    max_wait_s: float,
    on_wait: Callable[[float, Contention], None] | None = None,
    *,
    quiet_cores: float = QUIET_CORES,
    window_s: float = 0.5,
    watch: Callable[[float], Contention] = watch,
) -> float:
    """Wait, at most `max_wait_s`, until others use less than `quiet_cores`; returns the seconds.

    `on_wait` is told (seconds waited so far, what others do) after every busy window. Returns
    at once where contention cannot be seen: there is nothing to wait for.
    """
    waited_s = 0.0
    while waited_s < max_wait_s:
        seen = watch(min(window_s, max_wait_s - waited_s))
        waited_s += seen.wall_s
        if seen.crowded_cores is None or seen.crowded_cores < quiet_cores:
            break
        if on_wait is not None:
            on_wait(waited_s, seen)
    return waited_s


def too_busy(
    *,
    other_load: float | None = None,
    cores: float | None = None,
    steal_fraction: float | None = None,
    wall_per_cpu: float | None = None,
) -> str | None:
    """Why a timing under these conditions deserves no verdict, or None.

    - `other_load`, the load average beyond our own threads, exceeds the cores we may use: others
      alone would fill the machine;
    - the hypervisor gave more than a tenth of our time to others (`steal_fraction`);
    - `wall_per_cpu` of a single-threaded, compute-bound probe above 1.1: it waited for a core.
    A condition that is not known speaks neither way.
    """
    if other_load is not None and cores is not None and other_load > cores:
        return f"the load of other processes ({other_load:.1f}) exceeds the {cores:g} cores"
    if steal_fraction is not None and steal_fraction > WIDEST_STEAL_FRACTION:
        return f"{steal_fraction:.0%} of its time was given to other virtual machines"
    if wall_per_cpu is not None and wall_per_cpu > WIDEST_WALL_PER_CPU:
        return f"a compute-bound thread waited for a core (wall/CPU {wall_per_cpu:.2f})"
    return None


def parse_cpu_ticks(stat: str, cores: frozenset[int]) -> tuple[int, int, int]:
    """(busy, steal, total) clock ticks of the given cores, from the text of /proc/stat.

    Columns (proc(5)): user nice system idle iowait irq softirq steal; guest time is inside user.
    Raises ValueError where the cores are not listed.
    """
    busy = steal = total = 0
    found = False
    for line in stat.splitlines():
        name, *columns = line.split()
        if not (name.startswith("cpu") and name[3:].isdigit() and int(name[3:]) in cores):
            continue
        found = True
        user, nice, system, idle, iowait, irq, softirq, stolen, *_ = map(int, columns)
        busy += user + nice + system + irq + softirq
        steal += stolen
        total += user + nice + system + idle + iowait + irq + softirq + stolen
    if not found:
        raise ValueError("no per-core counters")
    return busy, steal, total


def parse_process(stat: str) -> tuple[int, int]:
    """(parent, clock ticks with those of awaited children), from the text of /proc/PID/stat."""
    columns = stat[stat.rindex(")") + 2 :].split()
    return int(columns[1]), sum(map(int, columns[11:15]))


def _cpu_times(proc: Path, cores: frozenset[int]) -> CpuTimes | None:
    try:
        busy, steal, total = parse_cpu_ticks((proc / "stat").read_text(), cores)
        own = _tree_ticks(_processes(proc), os.getpid())
    except (OSError, ValueError):
        return None
    per_s = os.sysconf("SC_CLK_TCK")
    return CpuTimes(
        busy_s=busy / per_s, steal_s=steal / per_s, total_s=total / per_s, own_s=own / per_s
    )


def _unknown(wall_s: float, load: float | None, why: str) -> Contention:
    return Contention(
        wall_s=wall_s,
        steal_fraction=None,
        other_cores_busy=None,
        own_cores_busy=None,
        crowded_cores=None,
        load=load,
        unknown=why,
    )


def _processes(proc: Path) -> dict[int, tuple[int, int]]:
    found = {}
    for entry in proc.iterdir():
        if entry.name.isdigit():
            try:
                found[int(entry.name)] = parse_process((entry / "stat").read_text())
            except (OSError, ValueError):
                continue  # it ended while we looked
    return found


def _tree_ticks(processes: Mapping[int, tuple[int, int]], root: int) -> int:
    """Clock ticks of a process and all its living descendants."""
    children: dict[int, list[int]] = {}
    for pid, (parent, _) in processes.items():
        children.setdefault(parent, []).append(pid)
    ticks, waiting = 0, [root]
    while waiting:
        pid = waiting.pop()
        if pid in processes:
            ticks += processes[pid][1]
            waiting += children.get(pid, [])
    return ticks


def _load() -> float | None:
    try:
        return os.getloadavg()[0]
    except (OSError, AttributeError):
        return None
