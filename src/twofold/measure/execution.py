"""`run`: execute a saved plan exactly, in a folder that can be resumed."""

from __future__ import annotations

import shlex
import signal
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from twofold.document import read_plan, write_json
from twofold.engines import Run, embedded_job, read_run
from twofold.engines.embedded import check_finished, read_rows
from twofold.errors import InputError
from twofold.host import describe_host, git_commit
from twofold.launch import run_job
from twofold.measure.folders import free_folder
from twofold.measure.progress import Progress
from twofold.workload.train import UNSPECIFIED


@dataclass(frozen=True, slots=True, kw_only=True)
class Executed:
    """A finished run and where it lies."""

    folder: Path
    run: Run
    predicted_step_time_s: float | None

    def as_mapping(self) -> dict[str, Any]:
        return {
            "folder": str(self.folder),
            "predicted_step_time_s": self.predicted_step_time_s,
            "run": asdict(self.run),
        }


def execute_plan(
    path: Path, *, runs: Path, checkpoint_every_s: float, progress: Progress
) -> Executed:
    """Run `plan.json` in a new folder, or go on with the run whose folder is given."""
    if path.is_dir():
        folder = path
        if not (folder / "plan.json").is_file():
            raise InputError(
                "the folder holds no plan.json", at=str(folder), help="name a run folder"
            )
    else:
        folder = free_folder(runs, path.stem)
    document = read_plan(folder / "plan.json" if path.is_dir() else path)
    if document.workload.text == UNSPECIFIED:
        raise InputError(
            "the plan names no text to train on: it was made for planning only",
            at=f"{path}, workload, text",
            help="plan again with --text FILE, FOLDER or SHARDS",
        )
    guess = document.estimate
    predicted_s = guess.outcome.step_time_s if guess else None
    if _has_ended(folder):
        progress.note("this run has ended; nothing is left to do")
        return Executed(folder=folder, run=read_run(folder), predicted_step_time_s=predicted_s)
    write_json(
        folder / "environment.json", {"host": describe_host(), "commit": git_commit(Path.cwd())}
    )
    progress.note(f"run folder: {folder}")
    job = embedded_job(
        [document], [folder], evaluate=["tune"], checkpoint_every_s=checkpoint_every_s
    )
    finished = run_job(job, progress.detail)
    if finished.returncode in (130, -signal.SIGINT, -signal.SIGTERM):
        progress.note(f"saved; go on with: twofold run {shlex.quote(str(folder))}")
        raise KeyboardInterrupt
    check_finished(job, finished)
    return Executed(folder=folder, run=read_run(folder), predicted_step_time_s=predicted_s)


def _has_ended(folder: Path) -> bool:
    path = folder / "metrics.jsonl"
    return path.is_file() and any(row.get("event") == "end" for row in read_rows(path))
