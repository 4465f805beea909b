import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from twofold.host import load
from twofold.host.load import (
    Contention,
    CpuTimes,
    Snapshot,
    contention,
    observe,
    parse_cpu_ticks,
    parse_process,
    too_busy,
    wait_until_quiet,
    watch,
)

linux = pytest.mark.skipif(not Path("/proc/stat").exists(), reason="needs /proc/stat")

STAT = """\
cpu  30 3 60 600 6 0 3 9 0 0
cpu0 10 1 20 200 2 0 1 3 5 0
cpu1 20 2 40 400 4 0 2 6 0 0
intr 12345
"""


def snapshot(
    time_s: float, cpu: CpuTimes | None, *, visible: int = 2, usable: float = 2.0
) -> Snapshot:
    return Snapshot(time_s=time_s, load=1.5, cpu=cpu, visible_cores=visible, usable_cores=usable)


def cpu(busy_s: float, own_s: float, steal_s: float = 0.0, total_s: float = 0.0) -> CpuTimes:
    return CpuTimes(busy_s=busy_s, steal_s=steal_s, total_s=total_s, own_s=own_s)


def test_ticks_are_summed_over_the_visible_cores_only() -> None:
    assert parse_cpu_ticks(STAT, frozenset({0})) == (32, 3, 237)
    assert parse_cpu_ticks(STAT, frozenset({0, 1})) == (96, 9, 711)
    with pytest.raises(ValueError, match="per-core"):
        parse_cpu_ticks(STAT, frozenset({7}))


def test_a_process_name_may_hold_spaces_and_brackets() -> None:
    text = "42 (a) b (c)) S 7 42 42 0 -1 4194304 1 2 0 0 100 20 3 4 20 0 1 0 99 1 1"
    assert parse_process(text) == (7, 127)


def test_others_are_what_is_neither_idle_nor_ours() -> None:
    before = snapshot(100.0, cpu(10.0, 1.0, 0.0, 100.0))
    after = snapshot(110.0, cpu(25.0, 6.0, 2.0, 120.0))
    seen = contention(before, after)
    assert seen.other_cores_busy == pytest.approx(1.0)
    assert seen.own_cores_busy == pytest.approx(0.5)
    assert seen.crowded_cores == pytest.approx(1.0)
    assert seen.steal_fraction == pytest.approx(0.1)
    assert seen.unknown is None


def test_under_a_quota_others_may_use_the_cores_we_may_not() -> None:
    before = snapshot(0.0, cpu(0.0, 0.0), visible=64, usable=4.0)
    after = snapshot(10.0, cpu(500.0, 0.0, 0.0, 640.0), visible=64, usable=4.0)
    assert contention(before, after).crowded_cores == 0.0
    fuller = snapshot(10.0, cpu(620.0, 0.0, 0.0, 640.0), visible=64, usable=4.0)
    assert contention(before, fuller).crowded_cores == pytest.approx(2.0)


@pytest.mark.parametrize("last", [None, cpu(0.0, 0.0)], ids=["not shown", "standing still"])
def test_what_cannot_be_seen_is_unknown_and_not_zero(last: CpuTimes | None) -> None:
    seen = contention(snapshot(0.0, cpu(0.0, 0.0)), snapshot(1.0, last))
    assert (seen.steal_fraction, seen.other_cores_busy, seen.crowded_cores) == (None, None, None)
    assert seen.unknown
    assert seen.load == 1.5


def test_a_system_without_proc_shows_the_load_alone(tmp_path: Path) -> None:
    seen = observe(tmp_path)
    assert seen.cpu is None
    assert seen.visible_cores >= 1


def spin(seconds: float) -> str:
    return f"import time\nend = time.time() + {seconds}\nwhile time.time() < end: pass"


@linux
def test_the_work_of_a_living_child_is_our_own() -> None:
    with subprocess.Popen([sys.executable, "-c", spin(1.2)]) as child:
        before = observe()
        time.sleep(0.8)
        seen = contention(before, observe())
        child.wait()
    assert seen.own_cores_busy is not None
    assert seen.own_cores_busy > 0.1  # one core, less what a crowded machine withholds


@linux
def test_the_work_of_an_awaited_child_stays_our_own() -> None:
    before = observe()
    subprocess.run([sys.executable, "-c", spin(0.4)], check=True)
    after = observe()
    assert before.cpu is not None
    assert after.cpu is not None
    assert after.cpu.own_s - before.cpu.own_s > 0.1


@linux
def test_the_work_of_a_stranger_is_not_ours() -> None:
    """Its parent ends at once, so it is no descendant of this process."""
    code = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {spin(1.0)!r}])"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=10)
    seen = watch(0.6)
    assert seen.other_cores_busy is not None
    assert seen.other_cores_busy > 0.25
    assert seen.own_cores_busy is not None
    assert seen.own_cores_busy < 0.25


def windows(*crowded: float | None) -> Callable[[float], Contention]:
    """A machine that is as crowded as told, window after window."""
    left = iter(crowded)

    def next_window(window_s: float) -> Contention:
        cores = next(left)
        return Contention(
            wall_s=window_s, steal_fraction=0.0, other_cores_busy=cores, own_cores_busy=0.0,
            crowded_cores=cores, load=None, unknown=None if cores is not None else "unseen",
        )  # fmt: skip

    return next_window


def test_a_quiet_machine_costs_one_window() -> None:
    assert wait_until_quiet(60.0, watch=windows(0.1)) == 0.5


def test_a_busy_machine_is_waited_out_and_said() -> None:
    told: list[float] = []
    waited_s = wait_until_quiet(
        60.0, lambda waited_s, _: told.append(waited_s), watch=windows(1.5, 0.8, 0.2)
    )
    assert waited_s == 1.5
    assert told == [0.5, 1.0]


def test_the_wait_is_bounded() -> None:
    assert wait_until_quiet(1.2, watch=windows(*[2.0] * 99)) == pytest.approx(1.2)
    assert wait_until_quiet(0.0, watch=windows()) == 0.0


def test_what_cannot_be_seen_is_not_waited_for() -> None:
    assert wait_until_quiet(60.0, watch=windows(None)) == 0.5


@pytest.mark.parametrize(
    ("conditions", "word"),
    [
        ({"other_load": 2.5, "cores": 2.0}, "load"),
        ({"steal_fraction": 0.2}, "virtual machines"),
        ({"wall_per_cpu": 1.3}, "waited for a core"),
    ],
)
def test_a_busy_machine_is_named(conditions: dict[str, float], word: str) -> None:
    reason = too_busy(**conditions)
    assert reason is not None
    assert word in reason


@pytest.mark.parametrize(
    "conditions",
    [
        {},
        {"other_load": 50.0},
        {"other_load": 1.9, "cores": 2.0, "steal_fraction": 0.02, "wall_per_cpu": 1.02},
    ],
)
def test_a_quiet_or_unknown_machine_is_not_accused(conditions: dict[str, float]) -> None:
    assert too_busy(**conditions) is None


def test_load_may_be_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> tuple[float, float, float]:
        raise OSError

    monkeypatch.setattr(os, "getloadavg", none)
    assert load.observe().load is None
