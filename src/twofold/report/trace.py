"""One Chrome trace of all ranks of a run, for Perfetto (ui.perfetto.dev) or chrome://tracing.

Each rank is a process row with its compute and its wait for the others in every step; what befell
the run (deaths, restarts, checkpoints) is marked on the first rank's row.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from twofold.document import write_text
from twofold.errors import InputError

Row = dict[str, Any]
_MICROSECONDS = 1e6


def write_trace(folder: Path, path: Path) -> int:
    """Merge `ranks/*.jsonl`, `metrics.jsonl` and `events.jsonl`; returns the number of spans."""
    spans = trace_events(folder)
    if not spans:
        raise InputError(
            "no rank has written a step",
            at=str(folder / "ranks"),
            help="name the folder of a run on several ranks",
        )
    write_text(path, json.dumps({"traceEvents": spans, "displayTimeUnit": "ms"}) + "\n")
    return len(spans)


def trace_events(folder: Path) -> list[Row]:
    """Events in the Trace Event Format, times in microseconds from the first of them."""
    spans: list[Row] = []
    for path in sorted((folder / "ranks").glob("rank-?????.jsonl")):
        rank = int(path.stem.removeprefix("rank-"))
        spans.append(_name(rank))
        for row in _rows(path.with_suffix(".lost.jsonl")) + _rows(path):
            if row.get("event", "step") == "step" and "began_at" in row:
                spans += _step_spans(rank, row)
    if not spans:
        return []
    for row in _rows(folder / "metrics.jsonl") + _rows(folder / "metrics.lost.jsonl"):
        if row.get("event") == "checkpoint":
            began_at = row["ended_at"] - row["stall_s"]
            spans.append(_span(0, f"checkpoint {row['step']}", began_at, row["stall_s"]))
    for row in _rows(folder / "events.jsonl"):
        spans.append(_mark(row))
    origin = min(span["ts"] for span in spans if span["ph"] != "M")
    for span in spans:
        if span["ph"] != "M":
            span["ts"] -= origin
    return spans


def _step_spans(rank: int, row: Row) -> list[Row]:
    began_at, compute_s, wait_s = row["began_at"], row["compute_s"], row["wait_s"]
    step, sequences = row["step"], row.get("sequences")
    return [
        _span(rank, f"compute {step}", began_at, compute_s, {"sequences": sequences}),
        _span(rank, f"wait {step}", began_at + compute_s, wait_s),
    ]


def _span(rank: int, name: str, began_at: float, time_s: float, details: Row | None = None) -> Row:
    return {
        "ph": "X",
        "pid": rank,
        "tid": 0,
        "name": name,
        "cat": name.split()[0],
        "ts": began_at * _MICROSECONDS,
        "dur": time_s * _MICROSECONDS,
        "args": details or {},
    }


def _mark(row: Row) -> Row:
    details = {key: value for key, value in row.items() if key not in ("time", "event")}
    return {
        "ph": "i",
        "s": "g",
        "pid": 0,
        "tid": 0,
        "name": row["event"],
        "cat": "event",
        "ts": row["time"] * _MICROSECONDS,
        "args": details,
    }


def _name(rank: int) -> Row:
    return {
        "ph": "M",
        "pid": rank,
        "tid": 0,
        "name": "process_name",
        "args": {"name": f"rank {rank}"},
    }


def _rows(path: Path) -> list[Row]:
    if not path.exists():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows
