"""Jobs on this machine: start one, follow its rows, and leave no process behind."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from typing import IO

from twofold.errors import EnvironmentLack
from twofold.launch.hosts import ThisMachine
from twofold.launch.interruption import Interruption
from twofold.launch.job import Finished, Job
from twofold.launch.process import Process, children_cpu_s, signal_group, start_process
from twofold.launch.rows import Follower, Row, last_lines
from twofold.launch.supervisor import Supervisor
from twofold.launch.verdict import SAVE_S

_POLL_S = 0.05
_GRACE_S = 20.0


def run_job(
    job: Job,
    on_row: Callable[[Row], None] | None = None,
    interruption: Interruption | None = None,
) -> Finished:
    """Run to the end. On Ctrl-C the job is asked to save and stop, then KeyboardInterrupt rises.

    A caller that hands in its own `interruption` is told how the job ended then, and judges it.
    Every complete JSON line that appears in the job's metrics files is handed to `on_row`.
    A job of several ranks is not started again when one of them dies: `Supervisor` does that.
    """
    if interruption is None:
        with Interruption() as own:
            finished = run_job(job, on_row, own)
        if own.count:
            raise KeyboardInterrupt
        return finished
    if job.num_ranks > 1:
        return _run_ranks(job, on_row, interruption)
    log = _open_log(job)
    followers = [Follower(path) for path in job.metrics]
    started_at = time.time()
    start = time.perf_counter()
    used_before_s = children_cpu_s()
    timed_out = False
    with log:
        process = start_process(
            job.name,
            job.argv,
            output=log,
            environment={**job.environment, "TWOFOLD_STARTED_AT": repr(started_at)},
            working_folder=job.working_folder,
        )
        try:
            while process.poll() is None and not interruption.count:
                _deliver(followers, on_row)
                if job.timeout_s is not None and time.perf_counter() - start > job.timeout_s:
                    timed_out = True
                    break
                time.sleep(_POLL_S)
        finally:
            if process.poll() is None:
                _stop(process, interruption)
            signal_group(process, signal.SIGKILL)
    _deliver(followers, on_row)
    return Finished(
        returncode=process.returncode,
        started_at=started_at,
        wall_s=time.perf_counter() - start,
        cpu_s=children_cpu_s() - used_before_s,
        timed_out=timed_out,
        last_lines=last_lines(job.log),
    )


def _run_ranks(
    job: Job, on_row: Callable[[Row], None] | None, interruption: Interruption
) -> Finished:
    return Supervisor(
        job,
        ThisMachine(),
        (tuple(range(job.num_ranks)),),
        interruption=interruption,
        max_restarts=0,
        on_row=on_row,
    ).run()


def _open_log(job: Job) -> IO[bytes]:
    try:
        job.folder.mkdir(parents=True, exist_ok=True)
        return job.log.open("ab")
    except OSError as error:
        raise EnvironmentLack(
            f"the run folder cannot be written: {error.strerror}",
            at=str(job.folder),
            help="check free space and permission",
        ) from error


def _deliver(followers: list[Follower], on_row: Callable[[Row], None] | None) -> None:
    for follower in followers:
        for row in follower.rows():
            if on_row is not None:
                on_row(row)


def _stop(process: Process, interruption: Interruption) -> None:
    """Ask, wait, then insist. A further request while waiting insists at once."""
    asked = interruption.count
    until = time.monotonic() + (SAVE_S if asked else _GRACE_S)
    signal_group(process, signal.SIGINT)
    while process.poll() is None:
        if interruption.count > asked or time.monotonic() > until:
            signal_group(process, signal.SIGKILL)
            process.wait()
        time.sleep(_POLL_S)
