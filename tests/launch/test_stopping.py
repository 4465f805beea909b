"""What a request to stop means: once or insisting, saved or not, an error, a machine lost."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.test_document import document
from twofold.errors import EnvironmentLack, TwofoldError
from twofold.launch import Job, run_job
from twofold.launch.interruption import Interruption
from twofold.launch.ranks import Order, RankEnd
from twofold.launch.supervisor import Supervisor
from twofold.launch.verdict import AttemptEnd, judge
from twofold.measure import execution
from twofold.measure.execution import execute_plan, what_is_saved
from twofold.measure.folders import alone_in_run
from twofold.measure.progress import Silent


def test_signals_in_quick_succession_are_one_request(monkeypatch: pytest.MonkeyPatch) -> None:
    with Interruption() as interruption:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        assert interruption.count == 1
        assert interruption.asked_at is not None
        later = time.monotonic() + 2.1
        monkeypatch.setattr(time, "monotonic", lambda: later)
        os.kill(os.getpid(), signal.SIGTERM)
        assert interruption.count == 2


def test_a_stop_does_not_claim_an_older_checkpoint(tmp_path: Path) -> None:
    assert what_is_saved(tmp_path, 0.0) == "stopped before anything was saved"
    newest = tmp_path / "checkpoints" / "step-00000010"
    newest.mkdir(parents=True)
    written = newest.stat().st_mtime
    assert what_is_saved(tmp_path, written - 1) == "saved: step-00000010"
    assert what_is_saved(tmp_path, written + 1).startswith("this stop saved nothing; newest")


class ScriptedHost:
    """One rank, which ends with `code` once it is told to stop; None: it is lost at its start."""

    index, name = 0, "scripted"

    def __init__(self, code: int | None) -> None:
        self.code = code
        self.lost = self.running = False
        self.stops: list[tuple[int, float]] = []

    def start(self, order: Order) -> None:
        self.running, self.lost = True, self.code is None

    def stop(self, number: int, grace_s: float) -> None:
        self.stops.append((number, grace_s))

    def ended(self) -> list[RankEnd]:
        if not self.running or not self.stops:
            return []
        self.running = False
        return [RankEnd(rank=0, code=self.code or 0)]

    def end(self) -> None: ...

    def dismiss(self, exit_code: int, why: str) -> None: ...


class ScriptedTeam:
    address, interrupts = "127.0.0.1", 0

    def __init__(self, host: Any) -> None:
        self.hosts = [host]

    def pump(self, timeout_s: float) -> None: ...


class NoStore:
    environment: dict[str, str] = {}  # noqa: RUF012
    ended = False


def watched(host: ScriptedHost, folder: Path, *, requests: int) -> AttemptEnd:
    interruption = Interruption()
    interruption.count = requests
    supervisor = Supervisor(
        Job(name="x", argv=("x",), folder=folder),
        ScriptedTeam(host),
        ((0,),),
        interruption=interruption,
        max_restarts=0,
    )
    store: Any = NoStore()
    host.start(supervisor._order(host, store))
    return supervisor._watch(store)


def test_a_machine_lost_at_its_start_is_no_end_of_the_run(tmp_path: Path) -> None:
    host = ScriptedHost(None)
    end = watched(host, tmp_path, requests=0)
    assert (end.kind, end.lost) == ("died", (host,))


@pytest.mark.parametrize(("code", "kind"), [(130, "interrupted"), (3, "failed")])
def test_a_stop_has_minutes_to_save_and_an_error_in_it_is_told(
    tmp_path: Path, code: int, kind: str
) -> None:
    host = ScriptedHost(code)
    assert watched(host, tmp_path, requests=1).kind == kind
    assert host.stops[0] == (signal.SIGINT, 600.0)


def test_an_interrupted_run_that_was_killed_stays_interrupted() -> None:
    assert judge("interrupted", [RankEnd(rank=0, code=-9)]) == "interrupted"


@pytest.mark.parametrize("code", [130, 3])
def test_a_single_process_saves_in_spite_of_a_doubled_signal(tmp_path: Path, code: int) -> None:
    program = (
        "import signal, sys, time\n"
        "asked = []\n"
        "signal.signal(signal.SIGINT, lambda *_: asked.append(1))\n"
        f"open({str(tmp_path / 'ready')!r}, 'w').close()\n"
        "while not asked: time.sleep(0.01)\n"
        "time.sleep(0.3)\n"
        "print('saved')\n"
        f"sys.exit({code})\n"
    )

    def stop_twice() -> None:
        while not (tmp_path / "ready").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGTERM)

    stopper = threading.Thread(target=stop_twice)
    with Interruption() as interruption:
        stopper.start()
        job = Job(name="x", argv=(sys.executable, "-c", program), folder=tmp_path)
        finished = run_job(job, interruption=interruption)
        stopper.join()
    assert (finished.returncode, interruption.count) == (code, 1)
    assert "saved" in finished.last_lines


def test_a_second_run_in_a_folder_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execution, "plan_to_run", lambda path: document())
    with alone_in_run(tmp_path), pytest.raises(EnvironmentLack, match="another `twofold run`"):
        execute_plan(tmp_path, runs=tmp_path, checkpoint_every_s="best", progress=Silent())
    assert [path.name for path in tmp_path.iterdir()] == [".run.lock"]


def test_a_refused_plan_leaves_no_run_folder(tmp_path: Path) -> None:
    plan, runs = tmp_path / "plan.json", tmp_path / "runs"
    plan.write_text("{}")
    with pytest.raises(TwofoldError):
        execute_plan(plan, runs=runs, checkpoint_every_s="best", progress=Silent())
    assert not runs.exists()
