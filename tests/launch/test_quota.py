"""A process under a quota gets its share of a core and no more."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from twofold.errors import EnvironmentLack
from twofold.launch.quota import CpuQuota, _remove_stale

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


def ended_process_id() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_group_that_cannot_take_a_process_is_a_lack(tmp_path: Path) -> None:
    quota = CpuQuota("test", 1e9)
    quota.hold(os.getpid())
    quota._folder = tmp_path / "gone"
    with pytest.raises(EnvironmentLack, match="cannot be held"):
        quota.hold(os.getpid())


def test_a_process_that_has_ended_needs_no_holding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ended(*_: object) -> int:
        raise ProcessLookupError

    quota = CpuQuota("test", 1e9)
    quota._folder = tmp_path
    monkeypatch.setattr(Path, "write_text", ended)
    quota.hold(1)


@pytest.mark.skipif(sys.platform != "linux", reason="control groups are Linux")
def test_groups_of_ended_runs_are_removed(tmp_path: Path) -> None:
    stale, ours = f"twofold-{ended_process_id()}-rank-0", f"twofold-{os.getpid()}-rank-0"
    for name in (stale, ours, "other"):
        (tmp_path / name).mkdir()
    _remove_stale(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", ours]
