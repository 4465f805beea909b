"""`Job`: a process to be run, whoever made it. `Finished`: how it ended."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One process. Output goes to `folder`/job.log; rows are read from the JSONL `metrics` files.

    `working_folder` is where it starts; None is the current one.
    """

    name: str
    argv: tuple[str, ...]
    folder: Path
    metrics: tuple[Path, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    working_folder: Path | None = None
    timeout_s: float | None = None

    @property
    def log(self) -> Path:
        return self.folder / "job.log"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """`cpu_s` is user and system time of the process and its children."""

    returncode: int
    started_at: float
    wall_s: float
    cpu_s: float
    timed_out: bool
    last_lines: str
