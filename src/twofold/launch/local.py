"""The local supervisor: starts a Job, follows its rows, and leaves no process behind."""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twofold.errors import EnvironmentLack, InputError
from twofold.launch.job import Finished, Job

Row = dict[str, Any]
_POLL_S = 0.05
_GRACE_S = 20.0
_LAST_LINES = 20
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def run_job(job: Job, on_row: Callable[[Row], None] | None = None) -> Finished:
    """Run to the end. On Ctrl-C the job is asked to save and stop, then KeyboardInterrupt rises.

    Every complete JSON line that appears in the job's metrics files is handed to `on_row`.
    """
    try:
        job.folder.mkdir(parents=True, exist_ok=True)
        log = job.log.open("ab")
    except OSError as error:
        raise EnvironmentLack(
            f"the run folder cannot be written: {error.strerror}",
            at=str(job.folder),
            help="check free space and permission",
        ) from error
    followers = [_Follower(path) for path in job.metrics]
    started_at = time.time()
    start = time.perf_counter()
    used_before_s = _children_cpu_s()
    timed_out = False
    with log:
        process = _start(job, log, started_at)
        try:
            while process.poll() is None:
                _deliver(followers, on_row)
                if job.timeout_s is not None and time.perf_counter() - start > job.timeout_s:
                    timed_out = True
                    break
                time.sleep(_POLL_S)
        finally:
            if process.poll() is None:
                _stop(process)
            _end_group(process)
    _deliver(followers, on_row)
    return Finished(
        returncode=process.returncode,
        started_at=started_at,
        wall_s=time.perf_counter() - start,
        cpu_s=_children_cpu_s() - used_before_s,
        timed_out=timed_out,
        last_lines=_tail(job.log),
    )


def _start(job: Job, log: Any, started_at: float) -> subprocess.Popen[bytes]:
    environment = {**os.environ, **job.environment, "TWOFOLD_STARTED_AT": repr(started_at)}
    try:
        return subprocess.Popen(
            job.argv,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=job.working_folder,
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )
    except OSError as error:
        raise InputError(
            f"'{job.argv[0]}' cannot be started: {error.strerror}",
            at=f"job '{job.name}'",
            help="check the command and the folder it starts in",
        ) from error


def _die_with_parent() -> None:
    """Runs in the child before it starts: if we are killed, it is killed (Linux)."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class _Follower:
    """Reads whole JSON lines as they are appended; survives the file being trimmed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.offset = path.stat().st_size if path.exists() else 0
        self.rest = b""

    def rows(self) -> list[Row]:
        try:
            size = self.path.stat().st_size
            if size < self.offset:
                self.offset, self.rest = size, b""
            if size == self.offset:
                return []
            with self.path.open("rb") as stream:
                stream.seek(self.offset)
                content = self.rest + stream.read()
                self.offset = stream.tell()
        except OSError:
            return []
        *lines, self.rest = content.split(b"\n")
        rows = []
        for line in lines:
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if isinstance(row, dict):
                rows.append(row)
        return rows


def _deliver(followers: list[_Follower], on_row: Callable[[Row], None] | None) -> None:
    for follower in followers:
        for row in follower.rows():
            if on_row is not None:
                on_row(row)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ask, wait, then insist. A second Ctrl-C while waiting insists at once."""
    _signal(process, signal.SIGINT)
    try:
        process.wait(timeout=_GRACE_S)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        _signal(process, signal.SIGKILL)
        process.wait()


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """Whatever the job started and left behind ends with it."""
    _signal(process, signal.SIGKILL)


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    try:
        os.killpg(process.pid, number)
    except (ProcessLookupError, PermissionError):
        return


def _children_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _tail(path: Path) -> str:
    lines = path.read_bytes()[-8192:].decode("utf-8", errors="replace").splitlines()
    return "\n".join(lines[-_LAST_LINES:])
