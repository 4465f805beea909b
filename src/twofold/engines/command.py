"""A user's own command as an engine: any framework, read through its JSONL or its log.

The command may hold `{seed}` and `{folder}`; a command without `{seed}` is run as it is each
time. What it reports is named once, in the experiment file: fields of a JSONL file, or patterns
with one group each that are searched in its output.
"""

from __future__ import annotations

import math
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from twofold.engines.embedded import check_finished, read_rows
from twofold.engines.run import Run, thin_curve
from twofold.errors import InputError, JobFailed
from twofold.launch import Finished, Job

Reported = Literal[
    "step_time_s", "step_time_ms", "train_s", "tokens", "tokens_per_s", "loss", "test_loss"
]
_WALL_TOLERANCE = 1.02
REPORTED: tuple[str, ...] = get_args(Reported)


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """`fields` name JSONL keys, `patterns` are searched in the log; one of the two is given.

    `tokens_per_step` turns step times into time per token where the command does not say how
    many tokens it saw. The first `discard_steps` step times are warm-up and left out.
    """

    argv: str
    jsonl: str | None = None
    fields: dict[Reported, str] = field(default_factory=dict)
    patterns: dict[Reported, str] = field(default_factory=dict)
    tokens_per_step: int | None = None
    discard_steps: int = 1
    timeout_s: float = 3600.0

    def __post_init__(self) -> None:
        if bool(self.fields) == bool(self.patterns):
            raise InputError(
                "a command needs either `fields` (with `jsonl`) or `patterns`, one of the two",
                at=f"command '{self.argv}'",
                help=f"name what it reports, out of {', '.join(REPORTED)}",
            )
        if self.fields and self.jsonl is None:
            raise InputError(
                "`fields` are read from a JSONL file, and `jsonl` does not name it",
                at=f"command '{self.argv}'",
                help='add jsonl = "{folder}/metrics.jsonl" or where the command writes it',
            )
        for name, pattern in self.patterns.items():
            try:
                groups = re.compile(pattern).groups
            except re.error as error:
                raise InputError(
                    f"the pattern is not a regular expression: {error}",
                    at=f"command '{self.argv}', patterns.{name}",
                    help="correct it",
                ) from error
            if groups != 1:
                raise InputError(
                    f"the pattern has {groups} groups",
                    at=f"command '{self.argv}', patterns.{name}",
                    help="put exactly the number in one pair of parentheses",
                )
        for option, value, least in (
            ("discard_steps", self.discard_steps, 0),
            ("tokens_per_step", self.tokens_per_step, 1),
        ):
            if value is not None and value < least:
                raise InputError(
                    f"{option} is {value}",
                    at=f"command '{self.argv}'",
                    help=f"use at least {least}",
                )
        if not 0 < self.timeout_s < math.inf:
            raise InputError(
                f"timeout_s is {self.timeout_s}",
                at=f"command '{self.argv}'",
                help="use a positive number of seconds",
            )
        named = set(self.fields) | set(self.patterns)
        if not named & {"step_time_s", "step_time_ms", "train_s", "tokens_per_s"}:
            raise InputError(
                "nothing it reports tells the time",
                at=f"command '{self.argv}'",
                help="name step_time_s, step_time_ms, train_s or tokens_per_s",
            )
        if not self.argv.strip():
            raise InputError("the command is empty", at="arm, command", help="write the command")


def command_job(
    name: str, command: Command, folder: Path, *, seed: int, working_folder: Path | None = None
) -> Job:
    """The command with its placeholders filled; it starts in the current folder unless told."""
    argv = tuple(_fill(word, folder, seed) for word in command_words(name, command))
    return Job(
        name=name,
        argv=argv,
        folder=folder,
        working_folder=working_folder,
        timeout_s=command.timeout_s,
    )


def command_words(name: str, command: Command) -> list[str]:
    """The command as a shell would split it; nothing else of a shell is used."""
    try:
        return shlex.split(command.argv)
    except ValueError as error:
        raise InputError(
            f"the command cannot be split into words: {error}",
            at=f"arm '{name}', command",
            help="check its quotes",
        ) from error


def read_command_run(
    command: Command, job: Job, finished: Finished, *, seed: int, log_start: int = 0
) -> Run:
    """What the finished command reported, or an error that says what was missing."""
    check_finished(job, finished)
    series = (
        _from_jsonl(command, Path(_fill(command.jsonl or "", job.folder, seed)))
        if command.fields
        else _from_log(command, job.log, log_start)
    )
    missing = [name for name in (command.fields or command.patterns) if not series.get(name)]
    if missing:
        what = "fields" if command.fields else "patterns"
        where = command.jsonl if command.fields else str(job.log)
        raise JobFailed(
            f"the command ended well but printed nothing usable: no value for {missing}",
            at=f"arm '{job.name}', {what} ({where})",
            help="compare the pattern with the output:\n" + finished.last_lines[-600:],
        )
    step_times_s = series.get("step_time_s") or [
        value / 1e3 for value in series.get("step_time_ms", [])
    ]
    kept_s = step_times_s[command.discard_steps :]
    if step_times_s and not kept_s:
        raise JobFailed(
            f"all {len(step_times_s)} steps it reported are discarded as warm-up",
            at=f"arm '{job.name}', discard_steps",
            help="run more steps, or discard fewer",
        )
    num_steps, tokens, train_s = _extent(command, job, series, step_times_s, kept_s)
    _check_time(job, finished, train_s, step_times_s)
    losses = series.get("loss", [])
    test_losses = series.get("test_loss", [])
    diverged = not all(math.isfinite(loss) for loss in losses + test_losses)
    losses = [loss for loss in losses if math.isfinite(loss)]
    points = _points(losses, tokens, train_s)
    return Run(
        tokens=tokens,
        num_steps=num_steps,
        startup_s=max(0.0, finished.wall_s - train_s),
        train_s=train_s,
        cpu_s=finished.cpu_s,
        step_times_s=tuple(kept_s),
        train_loss=losses[-1] if losses else None,
        tune_loss=None,
        test_loss=test_losses[-1] if test_losses and not diverged else None,
        peak_memory_bytes=None,
        num_parameters=None,
        curve=thin_curve(points),
        diverged=diverged,
    )


def _check_time(job: Job, finished: Finished, train_s: float, step_times_s: list[float]) -> None:
    """A time must be a positive number, and no more than the clock on the wall saw pass."""
    if not all(0 < time_s < math.inf for time_s in [train_s, *step_times_s]):
        raise JobFailed(
            "a time it reported is not a positive number",
            at=f"arm '{job.name}'",
            help="check the pattern or field; a step of 0.0 ms needs more digits",
        )
    reported_s = max(train_s, sum(step_times_s))
    if reported_s > _WALL_TOLERANCE * finished.wall_s:
        raise JobFailed(
            f"it reported {reported_s:.4g} s of training, but ran for {finished.wall_s:.4g} s",
            at=f"arm '{job.name}'",
            help="check the unit: step_time_s is in seconds, step_time_ms in milliseconds",
        )


def _extent(
    command: Command,
    job: Job,
    series: dict[str, list[float]],
    step_times_s: list[float],
    kept_s: list[float],
) -> tuple[int, int, float]:
    """(steps, tokens, seconds) of the part of the run that counts."""
    reported = int(series["tokens"][-1]) if series.get("tokens") else None
    if kept_s:
        per_step = command.tokens_per_step or (
            reported / len(step_times_s) if reported is not None else 1
        )
        return len(kept_s), max(1, round(per_step * len(kept_s))), sum(kept_s)
    if series.get("train_s"):
        return 1, reported or 1, series["train_s"][-1]
    rates = series["tokens_per_s"][command.discard_steps :] or series["tokens_per_s"]
    rate = len(rates) / sum(1 / value for value in rates)
    tokens = reported or (command.tokens_per_step or 1) * len(rates)
    if not rate > 0:
        raise JobFailed(f"tokens_per_s is {rate}", at=f"arm '{job.name}'", help="check the pattern")
    return len(rates), tokens, tokens / rate


def _points(losses: list[float], tokens: int, train_s: float) -> list[tuple[int, float, float]]:
    count = len(losses)
    return [
        (round(tokens * (i + 1) / count), train_s * (i + 1) / count, loss)
        for i, loss in enumerate(losses)
    ]


def _from_jsonl(command: Command, path: Path) -> dict[str, list[float]]:
    """A loss of null, as JSON has no NaN, tells of a run that diverged."""
    rows = read_rows(path)
    return {
        name: [
            math.nan if row[key] is None else float(row[key])
            for row in rows
            if isinstance(row.get(key), int | float)
            or (name in ("loss", "test_loss") and key in row and row[key] is None)
        ]
        for name, key in command.fields.items()
    }


def _from_log(command: Command, log: Path, start: int) -> dict[str, list[float]]:
    text = log.read_bytes()[start:].decode("utf-8", errors="replace")
    series: dict[str, list[float]] = {}
    for name, pattern in command.patterns.items():
        values = []
        for match in re.finditer(pattern, text):
            try:
                values.append(float(match[1].replace(",", "")))
            except ValueError:
                continue
        series[name] = values
    return series


def _fill(word: str, folder: Path, seed: int) -> str:
    return word.replace("{seed}", str(seed)).replace("{folder}", str(folder))
