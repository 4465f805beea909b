"""What this process may use of the machine: cores and memory, by affinity and control group."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/")
_UNLIMITED_BYTES = 2**60
"""Version 1 writes "no limit" as a huge number just below 2^63."""


def visible_cores() -> frozenset[int]:
    """The logical cores this process may be scheduled on."""
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


def usable_cores(root: Path = ROOT) -> float:
    """Cores' worth of CPU: the visible cores, or the control group's quota where it is less."""
    quota = cpu_quota(root)
    visible = float(len(visible_cores()))
    return visible if quota is None else min(visible, quota)


def cpu_quota(root: Path = ROOT) -> float | None:
    """The tightest CPU quota of this process's control groups, in cores; None without one."""
    quotas = []
    for group in _groups(root, ""):
        quota, _, period = _read(group / "cpu.max").partition(" ")
        if quota.isdigit() and period.strip().isdigit():
            quotas.append(int(quota) / int(period))
    for group in _groups(root, "cpu"):
        quota_us, period_us = _read(group / "cpu.cfs_quota_us"), _read(group / "cpu.cfs_period_us")
        if quota_us.isdigit() and period_us.isdigit():
            quotas.append(int(quota_us) / int(period_us))
    return min(quotas, default=None)


def memory_limit_bytes(root: Path = ROOT) -> int | None:
    """The tightest memory limit of this process's control groups; None without one."""
    return min((limit for limit, _ in _memory_groups(root)), default=None)


def available_memory_bytes(root: Path = ROOT) -> int | None:
    """What can still be taken: the system's own estimate, or what the control groups leave."""
    left = [limit - used for limit, used in _memory_groups(root)]
    system = meminfo_bytes("MemAvailable", root)
    if system is not None:
        left.append(system)
    return max(0, min(left)) if left else None


def meminfo_bytes(name: str, root: Path = ROOT) -> int | None:
    for line in _read(root / "proc/meminfo").splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return int(value.split()[0]) * 1024
    return None


def _memory_groups(root: Path) -> list[tuple[int, int]]:
    """(limit, bytes in use that cannot be dropped) of every group with a limit."""
    found = []
    for controller, limit_file, usage_file, inactive in (
        ("", "memory.max", "memory.current", "inactive_file"),
        ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        for group in _groups(root, controller):
            limit, usage = _read(group / limit_file), _read(group / usage_file)
            if limit.isdigit() and usage.isdigit() and int(limit) < _UNLIMITED_BYTES:
                cached = _statistic(_read(group / "memory.stat"), inactive)
                found.append((int(limit), max(0, int(usage) - cached)))
    return found


def _statistic(text: str, name: str) -> int:
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return int(value)
    return 0


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """Folders of this process's group and its ancestors; `controller` "" means version 2.

    Inside a container the path may name a folder of the host that is not mounted; the mount's
    own root is then the group.
    """
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controller not in controllers.split(","):
            continue
        mounts = [controllers, controller] if controller else ["", "unified"]
        for mount in (root / "sys/fs/cgroup" / name for name in mounts):
            group = mount / path.lstrip("/")
            while group != mount:
                yield group
                group = group.parent
            yield mount


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""
