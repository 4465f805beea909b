"""`Job`: processes to be run, whoever made them. `Finished`: how they ended."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One process, or `num_ranks` equal ones that find each other.

    Output goes to `folder`/job.log, of several ranks to `folder`/logs/rank-00000.log and so on;
    rows are read from the JSONL `metrics` files. `working_folder` is where it starts; None is
    the current one. `cpu_cores` holds each rank to so many cores (None or none given: to no limit).
    With several ranks `argv` starts with a Python interpreter, and other
    machines use their own.
    """

    name: str
    argv: tuple[str, ...]
    folder: Path
    metrics: tuple[Path, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    working_folder: Path | None = None
    timeout_s: float | None = None
    num_ranks: int = 1
    cpu_cores: tuple[float | None, ...] = ()

    @property
    def log(self) -> Path:
        return self.folder / "job.log" if self.num_ranks == 1 else rank_log(self.folder, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """`cpu_s` is user and system time of the processes of this machine and their children.

    Of several ranks, `returncode` and `last_lines` are those of the one that ended the run.
    """

    returncode: int
    started_at: float
    wall_s: float
    cpu_s: float
    timed_out: bool
    last_lines: str


def rank_log(folder: Path, rank: int) -> Path:
    return folder / "logs" / f"rank-{rank:05d}.log"
