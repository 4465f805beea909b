"""Ranks of one machine under the supervisor: deaths, restarts, errors, interruptions, orphans."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

pytest.importorskip("torch")

from tests.launch.stand_in import (
    curve,
    events,
    expected_curve,
    processes_of,
    rank_process,
    read_lines,
    stand_in_job,
    wait_for,
)
from twofold.errors import JobFailed
from twofold.launch import Finished, Job, run_job
from twofold.launch.hosts import ThisMachine
from twofold.launch.interruption import Interruption
from twofold.launch.supervisor import Supervisor

pytestmark = pytest.mark.slow


def supervise(job: Job, *, max_restarts: int = 3) -> Finished:
    placement = (tuple(range(job.num_ranks)),)
    return Supervisor(
        job,
        ThisMachine(),
        placement,
        interruption=Interruption(),
        max_restarts=max_restarts,
    ).run()


def test_a_job_of_ranks_runs_like_any_other(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = []
    finished = run_job(stand_in_job(tmp_path, "--steps", "8", num_ranks=3), rows.append)
    assert finished.returncode == 0
    assert curve(tmp_path) == expected_curve(8)
    assert [row["step"] for row in rows] == list(range(1, 9))
    assert events(tmp_path) == [
        "run_start", "attempt_start", "ranks_started", "attempt_stopped", "finished",
    ]  # fmt: skip
    assert processes_of(tmp_path) == []


def test_a_killed_rank_is_started_again_and_the_curve_is_the_undisturbed_one(
    tmp_path: Path,
) -> None:
    steps = 30

    def kill() -> None:
        wait_for(lambda: len(curve(tmp_path)) >= 13)
        os.kill(rank_process(tmp_path, 1), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    finished = supervise(stand_in_job(tmp_path, "--steps", str(steps)))
    killer.join()
    assert finished.returncode == 0
    assert curve(tmp_path) == expected_curve(steps)
    rows = read_lines(tmp_path / "events.jsonl")
    died = [row for row in rows if row["event"] == "rank_died" and row["rank"] == 1]
    assert [(row["attempt"], row["signal"]) for row in died] == [(0, signal.SIGKILL)]
    again = [row for row in rows if row["event"] == "attempt_start"][1]
    assert int(again["checkpoint"].removeprefix("step-")) >= 10


def test_ranks_that_crash_at_the_start_are_given_up(tmp_path: Path) -> None:
    with pytest.raises(JobFailed, match=r"rank 1 died \(exit code 1\) 2 times") as caught:
        supervise(stand_in_job(tmp_path, "--fail", "crash"), max_restarts=1)
    assert "planted crash" in str(caught.value)
    assert events(tmp_path).count("attempt_start") == 2
    assert processes_of(tmp_path) == []


def test_a_users_error_is_not_tried_again(tmp_path: Path) -> None:
    finished = supervise(stand_in_job(tmp_path, "--fail", "error"))
    assert finished.returncode == 2
    assert '"error": "planted"' in finished.last_lines
    assert events(tmp_path).count("attempt_start") == 1


def test_a_timeout_ends_all_ranks(tmp_path: Path) -> None:
    finished = run_job(stand_in_job(tmp_path, "--steps", "100000", timeout_s=4.0))
    assert finished.timed_out
    assert processes_of(tmp_path) == []


RUN = (
    "import sys\n"
    "from pathlib import Path\n"
    "from tests.launch.stand_in import stand_in_job\n"
    "from twofold.launch import run_job\n"
    "try: run_job(stand_in_job(Path(sys.argv[1]), *sys.argv[2:]))\n"
    "except KeyboardInterrupt: sys.exit(130)\n"
)


def in_a_process(folder: Path, *options: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", RUN, str(folder), *options])


def test_a_second_ctrl_c_does_not_wait_for_hanging_ranks(tmp_path: Path) -> None:
    supervisor = in_a_process(tmp_path, "--fail", "hang")
    wait_for(lambda: len(curve(tmp_path)) >= 4)
    supervisor.send_signal(signal.SIGINT)
    time.sleep(2.2)
    supervisor.send_signal(signal.SIGINT)
    assert supervisor.wait(timeout=20) == 130
    wait_for(lambda: not processes_of(tmp_path), 5)


def test_nothing_outlives_a_killed_supervisor(tmp_path: Path) -> None:
    supervisor = in_a_process(tmp_path, "--steps", "100000")
    wait_for(lambda: len(curve(tmp_path)) >= 3)
    assert len(processes_of(tmp_path)) >= 4
    supervisor.kill()
    supervisor.wait()
    wait_for(lambda: not processes_of(tmp_path), 5)
