"""Where the time of a run went: the goodput ledger, from the files that the run left.

The categories are those of Google's ml-goodput-measurement (program start-up, data loading,
checkpoint saving, wasted progress and recovery after disruptions), offline and for any engine
that writes these rows. Goodput is training that lasted over all of the wall time.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from twofold.engines.embedded import read_rows
from twofold.errors import JobFailed
from twofold.launch.events import read_events
from twofold.perf.goodput import goodput_fraction

Row = dict[str, Any]
_STOPPING_S = 2.0
"""From the death of a rank until the others have stopped (`launch.supervisor`)."""
_DEATHS = ("rank_died", "hosts_lost")
_ENDS = ("finished", "interrupted", "failed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Goodput:
    """Seconds of wall time by what they went to; they add up to `wall_s`.

    `compute_s` trained steps that lasted, without their `data_stall_s`. `init_s` is the first
    start, `restart_s` the time from each death until its successor trained, without `lost_s`:
    steps that were done again, and steps begun and never ended. `other_s` is evaluation, the end
    and the time between rows.
    """

    wall_s: float
    init_s: float
    compute_s: float
    data_stall_s: float
    checkpoint_s: float
    restart_s: float
    lost_s: float
    other_s: float
    failures: int
    checkpoints: int
    steps: int

    @property
    def fraction(self) -> float:
        return self.compute_s / self.wall_s

    @property
    def parts_s(self) -> dict[str, float]:
        return {
            "compute": self.compute_s,
            "start": self.init_s,
            "data stall": self.data_stall_s,
            "checkpoints": self.checkpoint_s,
            "restart": self.restart_s,
            "lost work": self.lost_s,
            "other": self.other_s,
        }

    def as_mapping(self) -> dict[str, Any]:
        return {
            **asdict(self),
            "fraction": self.fraction,
            "predicted_fraction": self.predicted_fraction(),
        }

    def predicted_fraction(self) -> float:
        """What `perf` says of such a run with as many failures, at random moments.

        Given are its steps, its first start, the stall of a checkpoint and how far they lie apart.
        Predicted are lost work and restarts: each takes as long as the first start and the
        stopping of what was left.
        """
        useful_s = self.compute_s + self.data_stall_s
        saves = max(self.checkpoints, 1)
        running_s = self.wall_s - self.init_s - self.other_s
        fraction = goodput_fraction(
            useful_s / saves,
            self.checkpoint_s / saves,
            self.failures / running_s,
            self.init_s + _STOPPING_S,
        )
        fixed_s = self.init_s + self.other_s
        return self.compute_s / (fixed_s + useful_s / float(fraction))


def read_goodput(folder: Path) -> Goodput:
    """The ledger of a run folder; JobFailed where the run has not ended."""
    rows = read_rows(folder / "metrics.jsonl")
    lost_path = folder / "metrics.lost.jsonl"
    lost = read_rows(lost_path) if lost_path.exists() else []
    events = read_events(folder / "events.jsonl")
    steps = [row for row in rows if row["event"] == "step"]
    ends = [row for row in events if row["event"] in _ENDS]
    starts = [row for row in events if row["event"] == "attempt_start"]
    if not steps or not ends or not starts:
        raise JobFailed(
            "the run has not ended", at=str(folder), help="resume it with `twofold run`"
        )
    attempts = _attempts(starts, events, [*rows, *lost])
    kept = {(row["step"], row["ended_at"]) for row in steps}
    wall_s = sum(attempt.wall_s for attempt in attempts) + _gaps_s(attempts)
    compute_s = sum(row["step_time_s"] - row["data_s"] for row in steps)
    data_stall_s = sum(row["data_s"] for row in steps)
    saves = [row for row in [*rows, *lost] if row["event"] == "checkpoint"]
    checkpoint_s = sum(row["stall_s"] for row in saves)
    lost_s = sum(
        row["step_time_s"]
        for row in lost
        if row["event"] == "step" and (row["step"], row["ended_at"]) not in kept
    )
    init_s = attempts[0].startup_s
    restart_s = sum(attempt.startup_s for attempt in attempts[1:]) + _gaps_s(attempts)
    lost_s += sum(attempt.unfinished_s for attempt in attempts if attempt.died)
    told_s = init_s + compute_s + data_stall_s + checkpoint_s + restart_s + lost_s
    return Goodput(
        wall_s=wall_s,
        init_s=init_s,
        compute_s=compute_s,
        data_stall_s=data_stall_s,
        checkpoint_s=checkpoint_s,
        restart_s=restart_s,
        lost_s=lost_s,
        other_s=wall_s - told_s,
        failures=sum(attempt.died for attempt in attempts),
        checkpoints=len(saves),
        steps=len(steps),
    )


class _Attempt:
    """One attempt between two wall-clock moments, with the rows that fall between them.

    `died`: ranks or machines did; the next attempt then belongs to the same run, and the time
    between them is its restart. After a wish to stop the clock stands still.
    """

    def __init__(self, begin_at: float, end_at: float, *, died: bool, rows: list[Row]) -> None:
        self.begin_at, self.end_at, self.died = begin_at, end_at, died
        mine = [row for row in rows if begin_at <= row.get("ended_at", -1.0) <= end_at]
        steps = [row for row in mine if row["event"] == "step"]
        self.wall_s = end_at - begin_at
        if not steps:
            self.startup_s, self.unfinished_s = self.wall_s, 0.0
            return
        first = min(steps, key=lambda row: float(row["ended_at"]))
        self.startup_s = first["ended_at"] - first["step_time_s"] - begin_at
        self.unfinished_s = end_at - max(
            float(row["ended_at"]) for row in mine if row["event"] in ("step", "checkpoint")
        )


def _attempts(starts: list[Row], events: list[Row], rows: list[Row]) -> list[_Attempt]:
    """An attempt ends when it is said to. One that nobody saw end (its supervisor was killed)
    ends with the last row that it wrote."""
    attempts = []
    for index, begin in enumerate(starts):
        said = [
            row
            for row in events
            if row["attempt"] == begin["attempt"] and row["event"] in (*_DEATHS, *_ENDS)
        ]
        later = starts[index + 1]["time"] if index + 1 < len(starts) else math.inf
        end_at = min((row["time"] for row in said), default=later)
        if not said:
            moments = [float(row["ended_at"]) for row in rows if "ended_at" in row]
            written = [moment for moment in moments if begin["time"] <= moment < later]
            end_at = max(written, default=begin["time"])
        died = any(row["event"] in _DEATHS for row in said)
        attempts.append(_Attempt(begin["time"], min(end_at, later), died=died, rows=rows))
    return attempts


def _gaps_s(attempts: list[_Attempt]) -> float:
    """From the death of an attempt to the start of the next: stopping what was left of it."""
    return sum(
        later.begin_at - earlier.end_at for earlier, later in pairwise(attempts) if earlier.died
    )
