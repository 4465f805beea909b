"""`run`: execute a saved plan exactly, in a folder that can be resumed, on one machine or many."""

from __future__ import annotations

import shlex
import signal
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from twofold import __version__
from twofold.document import PlanDocument, make_document, read_plan, write_json
from twofold.engines import Run, embedded_job, read_run
from twofold.engines.embedded import check_finished, on_fewer_ranks, read_rows
from twofold.errors import InputError, TwofoldError
from twofold.host import describe_host, git_commit
from twofold.launch import Finished, Job, run_job
from twofold.launch.coordinator import Coordinator
from twofold.launch.hosts import Team, ThisHost, ThisMachine
from twofold.launch.interruption import Interruption
from twofold.launch.network import interface_of
from twofold.launch.supervisor import Placement, Smaller, Supervisor
from twofold.launch.verdict import ERRORS
from twofold.measure.folders import alone_in_run, free_folder
from twofold.measure.goodput import Goodput, read_goodput
from twofold.measure.progress import Progress
from twofold.policy import ranks_of_hosts, shrink
from twofold.policy.checkpointing import Interval
from twofold.workload.train import UNSPECIFIED

_INTERRUPTED = 130


@dataclass(frozen=True, slots=True, kw_only=True)
class Executed:
    """A finished run and where it lies; `goodput` where a supervisor kept its events."""

    folder: Path
    run: Run
    predicted_step_time_s: float | None
    goodput: Goodput | None

    def as_mapping(self) -> dict[str, Any]:
        return {
            "folder": str(self.folder),
            "predicted_step_time_s": self.predicted_step_time_s,
            "run": asdict(self.run),
            "goodput": None if self.goodput is None else self.goodput.as_mapping(),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Machines:
    """Many machines, as their head sees them; `runs_ranks`: it is itself one of them."""

    num_hosts: int
    head: tuple[str, int]
    interface: str | None
    runs_ranks: bool
    join_within_s: float
    lost_after_s: float


def execute_plan(
    path: Path,
    *,
    runs: Path,
    checkpoint_every_s: Interval,
    progress: Progress,
    max_restarts: int = 3,
    machines: Machines | None = None,
) -> Executed:
    """Run `plan.json` in a new folder, or go on with the run whose folder is given."""
    document = plan_to_run(path)
    if machines is not None:
        ranks_of_hosts(document.plan, document.fleet, machines.num_hosts)
    folder = run_folder(path, runs)
    guess = document.estimate
    predicted_s = guess.outcome.step_time_s if guess else None
    if _has_ended(folder):
        progress.note("this run has ended; nothing is left to do")
        if machines is not None:
            _send_home(folder.resolve(), machines, progress)
        return _executed(folder, predicted_s)
    with alone_in_run(folder):
        _execute(folder, document, checkpoint_every_s, progress, max_restarts, machines)
    return _executed(folder, predicted_s)


def _execute(
    folder: Path,
    document: PlanDocument,
    checkpoint_every_s: Interval,
    progress: Progress,
    max_restarts: int,
    machines: Machines | None,
) -> None:
    write_json(
        folder / "environment.json", {"host": describe_host(), "commit": git_commit(Path.cwd())}
    )
    progress.note(f"run folder: {folder}")
    if machines is not None:
        folder = folder.resolve()
    job = embedded_job(
        [document], [folder], evaluate=["tune"], checkpoint_every_s=checkpoint_every_s
    )
    interruption = Interruption()
    try:
        with interruption:
            if machines is not None:
                finished = _run_on_many(
                    job, document, machines, interruption, max_restarts, progress
                )
            else:
                finished = run_here(
                    job, document, progress.detail, progress, max_restarts, interruption
                )
        _raise_if_interrupted(finished)
    except KeyboardInterrupt:
        progress.note(
            f"{what_is_saved(folder, interruption.asked_at)}; "
            f"go on with: twofold run {shlex.quote(str(folder))}"
        )
        raise
    check_finished(job, finished)


def what_is_saved(folder: Path, asked_at: float | None) -> str:
    """What a stop that was asked for then (None: by another machine) left to go on from."""
    newest = max(folder.glob("checkpoints/step-*"), key=lambda path: path.name, default=None)
    if newest is None:
        return "stopped before anything was saved"
    if asked_at is None:
        return f"newest checkpoint: {newest.name}"
    if newest.stat().st_mtime < asked_at:
        return f"this stop saved nothing; newest checkpoint: {newest.name}"
    return f"saved: {newest.name}"


def _executed(folder: Path, predicted_s: float | None) -> Executed:
    supervised = (folder / "events.jsonl").exists()
    return Executed(
        folder=folder,
        run=read_run(folder),
        predicted_step_time_s=predicted_s,
        goodput=read_goodput(folder) if supervised else None,
    )


def run_here(
    job: Job,
    document: PlanDocument,
    on_row: Callable[[dict[str, Any]], None],
    progress: Progress,
    max_restarts: int = 0,
    interruption: Interruption | None = None,
) -> Finished:
    """Run all ranks on this machine. KeyboardInterrupt where it was asked to stop.

    What an error kept from saving then is no interruption: its code is returned.
    """
    with nullcontext(interruption) if interruption else Interruption() as asked:
        if job.num_ranks == 1 and not job.cpu_cores:
            finished = run_job(job, on_row, asked)
        else:
            placement = (tuple(range(job.num_ranks)),)
            finished = _supervised(
                job, document, ThisMachine(), placement, asked, max_restarts, on_row, progress
            )
    if asked.count and finished.returncode not in ERRORS:
        raise KeyboardInterrupt
    _raise_if_interrupted(finished)
    return finished


def _raise_if_interrupted(finished: Finished) -> None:
    if finished.returncode in (_INTERRUPTED, -signal.SIGINT, -signal.SIGTERM):
        raise KeyboardInterrupt


def run_folder(path: Path, runs: Path) -> Path:
    """The folder of the run, new for a plan file. Read the plan first: no refusal leaves one."""
    return path if path.is_dir() else free_folder(runs, path.stem)


def plan_to_run(path: Path) -> PlanDocument:
    """The plan of the file or run folder, which must be one to be run."""
    if path.is_dir() and not (path / "plan.json").is_file():
        raise InputError("the folder holds no plan.json", at=str(path), help="name a run folder")
    document = read_plan(path / "plan.json" if path.is_dir() else path)
    if document.workload.text == UNSPECIFIED:
        raise InputError(
            "the plan names no text to train on: it was made for planning only",
            at=f"{path}, workload, text",
            help="plan again with --text FILE, FOLDER or SHARDS",
        )
    return document


def _run_on_many(
    job: Job,
    document: PlanDocument,
    machines: Machines,
    interruption: Interruption,
    max_restarts: int,
    progress: Progress,
) -> Finished:
    """Be the head: gather the machines, supervise the run, and tell them how it ended."""
    placement = ranks_of_hosts(document.plan, document.fleet, machines.num_hosts)
    team = _coordinator(job.folder, machines, progress)
    code, why = _INTERRUPTED, "interrupted"
    try:
        team.gather(machines.join_within_s, interruption)
        finished = _supervised(
            job, document, team, placement, interruption, max_restarts, progress.detail, progress
        )
        code = finished.returncode
        why = {0: "done", _INTERRUPTED: "interrupted"}.get(code, "it failed; the head says why")
    except TwofoldError as error:
        code, why = error.exit_code, error.what
        raise
    finally:
        team.close(code, why)
    return finished


def _send_home(folder: Path, machines: Machines, progress: Progress) -> None:
    """The others wait for a head that has nothing to do for them."""
    team = _coordinator(folder, machines, progress)
    try:
        with Interruption() as interruption:
            team.gather(machines.join_within_s, interruption)
    finally:
        team.close(0, "the run has ended; nothing is left to do")


def _coordinator(folder: Path, machines: Machines, progress: Progress) -> Coordinator:
    address, port = machines.head
    own = ThisHost(0, machines.interface or interface_of(address)) if machines.runs_ranks else None
    return Coordinator(
        address,
        port,
        folder,
        num_hosts=machines.num_hosts,
        own=own,
        lost_after_s=machines.lost_after_s,
        note=progress.note,
    )


def _supervised(
    job: Job,
    document: PlanDocument,
    team: Team,
    placement: Placement,
    interruption: Interruption,
    max_restarts: int,
    on_row: Callable[[dict[str, Any]], None],
    progress: Progress,
) -> Finished:
    return Supervisor(
        job,
        team,
        placement,
        interruption=interruption,
        max_restarts=max_restarts,
        shrink=_Shrinking(job, document).without,
        on_row=on_row,
        note=progress.note,
    ).run()


class _Shrinking:
    """The plan as machines are lost, each one written beside the plan the run began with."""

    def __init__(self, job: Job, document: PlanDocument) -> None:
        self.job = job
        self.document = document

    def without(self, attempt: int, lost_ranks: Sequence[int]) -> Smaller:
        before = self.document
        smaller = shrink(before.plan, lost_ranks, before.workload.recipe.global_batch)
        self.document = make_document(
            model=before.model,
            workload=before.workload,
            fleet=before.fleet,
            plan=smaller.plan,
            estimate=None,
            seed=before.seed,
            twofold_version=__version__,
            date=before.date,
        )
        path = self.job.folder / f"plan.attempt-{attempt}.json"
        self.job = on_fewer_ranks(self.job, path, self.document)
        return Smaller(job=self.job, kept=smaller.kept, plan=path.name)


def _has_ended(folder: Path) -> bool:
    path = folder / "metrics.jsonl"
    return path.is_file() and any(row.get("event") == "end" for row in read_rows(path))
