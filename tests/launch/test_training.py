"""Real training that is killed: ranks, machines, in the middle of a checkpoint, on a full disk.

Every run ends with the curve of the undisturbed one. `TWOFOLD_VERIFY=1` (make verify) kills ten
times instead of three.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("torch")

from tests.launch.stand_in import (
    curve,
    events,
    free_port,
    processes_of,
    rank_process,
    read_lines,
    wait_for,
)
from tests.launch.training import Process, make_run, succeed, twofold_run
from twofold.document import read_plan

pytestmark = pytest.mark.slow

KILLS = 10 if os.environ.get("TWOFOLD_VERIFY") else 3
STEPS = 90 + 10 * KILLS
NETLAB = Path(__file__).parents[2] / "tools" / "lab" / "netlab.py"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, text: str) -> Path:
    folder = make_run(tmp_path_factory.mktemp("undisturbed"), text, steps=STEPS)
    succeed(twofold_run(folder))
    return folder


def lost_saves(folder: Path) -> list[int]:
    """For each start after the first: checkpoints begun after the one it went on from."""
    lost = read_lines(folder / "metrics.lost.jsonl") + read_lines(folder / "metrics.jsonl")
    attempts = [r for r in read_lines(folder / "events.jsonl") if r["event"] == "attempt_start"]
    counts = []
    for row in attempts[1:]:
        saves = [
            save["step"]
            for save in lost
            if save["event"] == "checkpoint" and save["ended_at"] < row["time"]
        ]
        resumed = int((row["checkpoint"] or "step-0").removeprefix("step-"))
        counts.append(len({step for step in saves if step > resumed}))
    return counts


def largest_difference(folder: Path, other: Path) -> float:
    pairs = list(zip(curve(folder), curve(other), strict=True))
    assert all(step == other_step for (step, _), (other_step, _) in pairs)
    return max(abs(loss - other_loss) for (_, loss), (_, other_loss) in pairs)


def test_ranks_killed_at_random_steps_leave_no_trace_in_the_curve(
    tmp_path: Path, text: str, undisturbed: Path
) -> None:
    folder, random_ = make_run(tmp_path, text, steps=STEPS), random.Random(KILLS)
    running = twofold_run(folder, "--max-restarts", str(KILLS))
    for attempt, step in enumerate(sorted(random_.sample(range(2, STEPS - 10), KILLS))):
        wait_for(lambda attempt=attempt: events(folder).count("ranks_started") > attempt)
        wait_for(lambda step=step: len(curve(folder)) >= step)
        os.kill(rank_process(folder, random_.randrange(2)), signal.SIGKILL)
    succeed(running)
    assert events(folder).count("attempt_start") == KILLS + 1
    assert largest_difference(folder, undisturbed) == 0.0
    assert max(lost_saves(folder)) <= 1, "more than the work since the newest checkpoint was lost"
    assert processes_of(folder) == []


def test_killed_while_a_checkpoint_is_written(tmp_path: Path, text: str, undisturbed: Path) -> None:
    folder = make_run(tmp_path, text, steps=STEPS)
    running = twofold_run(folder, every="1ms")
    checkpoints = folder / "checkpoints"
    wait_for(lambda: len(list(checkpoints.glob("step-*"))) >= 1)
    wait_for(lambda: list(checkpoints.glob(".step-*")))
    os.kill(rank_process(folder, 0), signal.SIGKILL)
    succeed(running)
    assert events(folder).count("attempt_start") == 2
    assert largest_difference(folder, undisturbed) == 0.0
    assert list(checkpoints.glob(".step-*")) == []


class Loopback:
    """Three machines that are three agents here; one that dies is an agent that is killed."""

    address = "127.0.0.1"

    def words(self, index: int) -> list[str]:
        return []

    def kill(self, host: Process, index: int) -> None:
        host.kill()


class Namespaces:
    """Three machines with a network each; one that dies falls silent, without a last packet."""

    address = "10.77.0.1"
    names = ("a", "b", "c")

    def words(self, index: int) -> list[str]:
        return [sys.executable, str(NETLAB), "exec", self.names[index], "--"]

    def kill(self, host: Process, index: int) -> None:
        subprocess.run(["ip", "link", "set", f"nl-v{self.names[index]}", "down"], check=True)
        host.kill()


@pytest.fixture
def machines() -> Iterator[Loopback | Namespaces]:
    """Network namespaces where we may make them, else the loopback interface."""
    names = [f"{name}:rate=1000" for name in Namespaces.names]
    up = [sys.executable, str(NETLAB), "up", *names, "--max-s", "600"]
    if os.geteuid() != 0 or shutil.which("ip") is None or subprocess.run(up).returncode != 0:
        yield Loopback()
        return
    try:
        yield Namespaces()
    finally:
        subprocess.run([sys.executable, str(NETLAB), "down"], check=True)


def test_one_of_three_machines_dies_and_two_go_on(
    tmp_path: Path, text: str, undisturbed: Path, machines: Loopback | Namespaces
) -> None:
    folder = make_run(tmp_path, text, ranks=3, steps=STEPS)
    many = ["--hosts", "3", "--head", f"{machines.address}:{free_port()}", "--lost-after", "6s"]
    hosts = [
        twofold_run(folder, *many, "--host-index", str(index), on=machines.words(index))
        for index in range(3)
    ]
    wait_for(lambda: len(curve(folder)) >= STEPS // 3)
    machines.kill(hosts[2], 2)
    succeed(hosts[0])
    succeed(hosts[1])
    hosts[2].communicate()
    assert {"hosts_lost", "shrunk"} <= set(events(folder))
    assert read_plan(folder / "plan.json").plan.data_degree == 3
    smaller = sorted(folder.glob("plan.attempt-*.json"))
    assert read_plan(smaller[-1]).plan.data_degree == 2
    assert largest_difference(folder, undisturbed) < 1e-3
    assert max(lost_saves(folder)) <= 1
    wait_for(lambda: not processes_of(folder), 5)


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("mount") is None, reason="mounting a disk takes root"
)
def test_a_full_disk_is_an_error_and_no_corrupt_run(
    tmp_path: Path, text: str, undisturbed: Path
) -> None:
    saved = sorted((undisturbed / "checkpoints").glob("step-*"))[-1]
    size = sum(path.stat().st_size for path in saved.iterdir())
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={int(2.5 * size) + 200_000}", "none", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("mounting is not permitted here")
    try:
        folder = make_run(disk, text, steps=STEPS)
        full = twofold_run(folder)
        said, error = full.communicate(timeout=300)
        assert full.returncode == 3, said + error
        assert "cannot be written" in error
        # Training goes on while a checkpoint is written: whichever writes first says so.
        assert "free some space" in error or "check free space" in error
        assert list((folder / "checkpoints").glob("step-*")), "none was whole"
        assert events(folder).count("attempt_start") == 1
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        succeed(twofold_run(folder))
        assert largest_difference(folder, undisturbed) == 0.0
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_ctrl_c_saves_and_the_folder_is_gone_on_with(
    tmp_path: Path, text: str, undisturbed: Path
) -> None:
    folder = make_run(tmp_path, text, steps=STEPS)
    running = twofold_run(folder, every="1h")
    wait_for(lambda: len(curve(folder)) >= 5)
    began = time.monotonic()
    running.send_signal(signal.SIGINT)
    _, error = running.communicate(timeout=60)
    assert running.returncode == 130
    assert f"go on with: twofold run {folder}" in error
    assert time.monotonic() - began < 30
    assert processes_of(folder) == []
    succeed(twofold_run(folder, every="1h"))
    assert largest_difference(folder, undisturbed) == 0.0


def test_a_plan_of_one_rank_needs_no_store(tmp_path: Path, text: str) -> None:
    folder = make_run(tmp_path, text, ranks=1, steps=3)
    succeed(twofold_run(folder))
    assert not (folder / "events.jsonl").exists()
    assert (folder / "job.log").exists()
