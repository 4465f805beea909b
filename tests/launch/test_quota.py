"""A process under a quota gets its share of a core and no more."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from twofold.errors import EnvironmentLack
from twofold.launch.quota import CpuQuota

SPIN = "import time\nend = time.monotonic() + 2\nwhile time.monotonic() < end: pass\n"


def test_a_process_is_held_to_its_share() -> None:
    try:
        quota = CpuQuota("test", 0.2)
    except EnvironmentLack as lack:
        if os.environ.get("CI") and os.geteuid() == 0 and Path("/sys/fs/cgroup/cpu").exists():
            raise
        pytest.skip(f"no control groups to write: {lack.what}")
    process = subprocess.Popen([sys.executable, "-c", SPIN])
    try:
        quota.hold(process.pid)
        start_s = time.monotonic()
        _, _, usage = os.wait4(process.pid, 0)
        wall_s = time.monotonic() - start_s
    finally:
        process.kill()
        quota.close()
    assert usage.ru_utime + usage.ru_stime < 0.35 * wall_s
    assert not list(Path("/sys/fs/cgroup").glob(f"cpu/twofold-{os.getpid()}-test"))
