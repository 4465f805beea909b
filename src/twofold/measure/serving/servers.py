"""The servers of a proof: started together, kept for all of it, ended with it.

An idle server waits without using a core, so that one can be measured while the others stay.
"""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from twofold.engines.serving import serving_job
from twofold.errors import JobFailed
from twofold.launch import Job
from twofold.launch.process import Process, signal_group, start_process
from twofold.launch.rows import last_lines
from twofold.serving_document import ServingDocument

_START_S = 120.0
_STOP_S = 20.0
_POLL_S = 0.05


@contextmanager
def served(
    documents: Sequence[tuple[str, ServingDocument]], folder: Path, *, step_log: Path | None = None
) -> Iterator[list[str]]:
    """The URL of a server for each plan, when all of them answer. Their steps are logged where
    asked, for one plan alone."""
    started: list[tuple[Job, Process]] = []
    try:
        for name, document in documents:
            job = serving_job(document, folder / name, step_log=step_log)
            started.append((job, _start(job)))
        yield [_await_url(job, process) for job, process in started]
    finally:
        _stop([process for _, process in started])


def _start(job: Job) -> Process:
    job.folder.mkdir(parents=True, exist_ok=True)
    with job.log.open("ab") as log:
        return start_process(
            job.name,
            job.argv,
            output=log,
            environment=job.environment,
            working_folder=job.working_folder,
        )


def _stop(processes: Sequence[Process]) -> None:
    """All at once: they end side by side."""
    for process in processes:
        signal_group(process, signal.SIGTERM)
    until = time.monotonic() + _STOP_S
    for process in processes:
        with suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, until - time.monotonic()))
    for process in processes:
        signal_group(process, signal.SIGKILL)
        process.wait()


def _await_url(job: Job, process: Process) -> str:
    """The server says where it listens in one JSON line of its log."""
    until = time.monotonic() + _START_S
    while time.monotonic() < until:
        for line in job.log.read_text(encoding="utf-8", errors="replace").splitlines():
            url = _url_in(line)
            if url is not None:
                return url
        if process.poll() is not None:
            break
        time.sleep(_POLL_S)
    how = f"did not listen within {_START_S:.0f} s"
    if process.poll() is not None:
        how = f"ended with code {process.returncode}"
    raise JobFailed(
        f"the server of '{job.name}' {how}:\n{last_lines(job.log)}",
        at=str(job.log),
        help="the log has the whole output",
    )


def _url_in(line: str) -> str | None:
    try:
        said = json.loads(line)
    except ValueError:
        return None
    if isinstance(said, dict) and said.get("event") == "listening":
        return str(said["url"])
    return None
