"""Hold a process to a share of the cores by a control group (Linux, versions 1 and 2).

A pool whose machines are processes of this one under `cpu_cores` is run as it was planned.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

from twofold.errors import EnvironmentLack
from twofold.host.limits import usable_cores

_ROOT = Path("/sys/fs/cgroup")
_PERIOD_US = 20_000
"""Short, so that a throttled process stands still for milliseconds and not for tenths."""
_LEAVING_S = 2.0


class CpuQuota:
    """A control group with so many cores. Close it after its processes have ended."""

    def __init__(self, name: str, cores: float) -> None:
        self._folder: Path | None = None
        if usable_cores() <= cores:
            return
        parent, is_first_version = _parent()
        folder = parent / f"twofold-{os.getpid()}-{name}"
        quota_us = round(cores * _PERIOD_US)
        _remove_stale(parent)
        try:
            folder.mkdir(exist_ok=True)
            if is_first_version:
                (folder / "cpu.cfs_period_us").write_text(str(_PERIOD_US))
                (folder / "cpu.cfs_quota_us").write_text(str(quota_us))
            else:
                (folder / "cpu.max").write_text(f"{quota_us} {_PERIOD_US}")
        except OSError as error:
            raise _lack(folder, error) from error
        self._folder = folder

    def hold(self, process_id: int) -> None:
        """A process that has already ended needs no holding."""
        if self._folder is None:
            return
        try:
            (self._folder / "cgroup.procs").write_text(str(process_id))
        except ProcessLookupError:
            return
        except OSError as error:
            raise _lack(self._folder, error) from error

    def close(self) -> None:
        """The kernel lets a group go a moment after its last process."""
        if self._folder is None:
            return
        until = time.monotonic() + _LEAVING_S
        while True:
            try:
                self._folder.rmdir()
                return
            except OSError:
                if time.monotonic() > until:
                    return
                time.sleep(0.02)


def _remove_stale(parent: Path) -> None:
    """What killed runs left. A group that still has processes is not removed by the kernel."""
    for folder in parent.glob("twofold-*-*"):
        process_id = folder.name.split("-")[1]
        if process_id.isdigit() and not Path("/proc", process_id).exists():
            with suppress(OSError):
                folder.rmdir()


def _lack(folder: Path, error: OSError) -> EnvironmentLack:
    return EnvironmentLack(
        f"a process cannot be held to its share of the cores here: {error.strerror}",
        at=str(folder),
        help="run as root where control groups can be written, start every process under "
        "a quota of its own (`docker run --cpus`), or plan without cpu_cores",
    )


def _parent() -> tuple[Path, bool]:
    """Where groups are made, and whether by the first version."""
    if (_ROOT / "cpu" / "cpu.cfs_quota_us").exists() or (_ROOT / "cpu" / "tasks").exists():
        return _ROOT / "cpu", True
    return _ROOT, False
