"""`events.jsonl`: what befell a run, one JSON object a line, for people and the goodput ledger."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, Literal

from twofold.errors import EnvironmentLack

Event = Literal[
    "run_start",
    "attempt_start",
    "ranks_started",
    "rank_died",
    "attempt_stopped",
    "hosts_lost",
    "shrunk",
    "finished",
    "interrupted",
    "failed",
]


class Events:
    """Appends to the file; attempts are counted on where the folder is resumed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.attempt = max((int(row["attempt"]) for row in read_events(path)), default=-1) + 1

    def add(self, event: Event, **details: Any) -> None:
        row = {"time": time.time(), "event": event, "attempt": self.attempt, **details}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(row) + "\n")
        except OSError as error:
            raise EnvironmentLack(
                f"events cannot be written: {error.strerror}",
                at=str(self.path),
                help="check free space and permission; then resume the run",
            ) from error


def read_events(path: Path) -> list[dict[str, Any]]:
    """All whole rows; none where there is no file."""
    if not path.is_file():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and "event" in row and "attempt" in row:
            rows.append(row)
    return rows
