"""Control groups as they lie on real machines, laid out in a folder."""

from pathlib import Path

import pytest

from twofold.host import limits

GIB = 2**30
MEMINFO = "MemTotal:       16777216 kB\nMemFree:         1000 kB\nMemAvailable:    8388608 kB\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path, "proc/meminfo", MEMINFO)
    return tmp_path


def write(root: Path, name: str, text: object) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}\n")


def test_without_groups_nothing_is_limited(root: Path) -> None:
    assert limits.cpu_quota(root) is None
    assert limits.memory_limit_bytes(root) is None
    assert limits.usable_cores(root) == len(limits.visible_cores())
    assert limits.available_memory_bytes(root) == 8 * GIB


def test_version_2_takes_the_tightest_of_the_ancestors(root: Path) -> None:
    write(root, "proc/self/cgroup", "0::/user.slice/job")
    write(root, "sys/fs/cgroup/user.slice/job/cpu.max", "max 100000")
    write(root, "sys/fs/cgroup/user.slice/cpu.max", "50000 100000")
    write(root, "sys/fs/cgroup/user.slice/job/memory.max", "max")
    write(root, "sys/fs/cgroup/user.slice/memory.max", 4 * GIB)
    write(root, "sys/fs/cgroup/user.slice/memory.current", 3 * GIB)
    write(root, "sys/fs/cgroup/user.slice/memory.stat", f"anon 5\ninactive_file {GIB}")
    assert limits.cpu_quota(root) == 0.5
    assert limits.usable_cores(root) == 0.5
    assert limits.memory_limit_bytes(root) == 4 * GIB
    assert limits.available_memory_bytes(root) == 2 * GIB


def test_version_2_in_a_container_sees_its_own_root(root: Path) -> None:
    """The path of the host is not mounted inside."""
    write(root, "proc/self/cgroup", "0::/docker/abc")
    write(root, "sys/fs/cgroup/cpu.max", "150000 100000")
    write(root, "sys/fs/cgroup/memory.max", GIB)
    write(root, "sys/fs/cgroup/memory.current", 0)
    assert limits.cpu_quota(root) == 1.5
    assert limits.memory_limit_bytes(root) == GIB


@pytest.mark.parametrize("mount", ["cpu", "cpu,cpuacct"])
def test_version_1(root: Path, mount: str) -> None:
    write(root, "proc/self/cgroup", "4:memory:/job\n2:cpu,cpuacct:/job\n0::/")
    write(root, f"sys/fs/cgroup/{mount}/job/cpu.cfs_quota_us", 300_000)
    write(root, f"sys/fs/cgroup/{mount}/job/cpu.cfs_period_us", 100_000)
    write(root, f"sys/fs/cgroup/{mount}/cpu.cfs_quota_us", -1)
    write(root, f"sys/fs/cgroup/{mount}/cpu.cfs_period_us", 100_000)
    write(root, "sys/fs/cgroup/memory/job/memory.limit_in_bytes", 6 * GIB)
    write(root, "sys/fs/cgroup/memory/job/memory.usage_in_bytes", 7 * GIB)
    write(root, "sys/fs/cgroup/memory/memory.limit_in_bytes", 9223372036854771712)
    write(root, "sys/fs/cgroup/memory/memory.usage_in_bytes", 1)
    assert limits.cpu_quota(root) == 3.0
    assert limits.memory_limit_bytes(root) == 6 * GIB
    assert limits.available_memory_bytes(root) == 0


def test_memory_figures_that_are_not_there_are_unknown(tmp_path: Path) -> None:
    assert limits.meminfo_bytes("MemTotal", tmp_path) is None
    assert limits.available_memory_bytes(tmp_path) is None


def test_this_process_may_use_something() -> None:
    assert 0 < limits.usable_cores() <= len(limits.visible_cores())
