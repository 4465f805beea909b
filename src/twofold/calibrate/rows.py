"""Rows of the probe, merged over rounds and grouped."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from twofold.document import read_text
from twofold.errors import InputError

Row = Mapping[str, Any]

MOSTLY_CLEAN = 0.5
"""A round counts as undisturbed when half of its repetitions were."""

_TIMES = ("forward_s", "training_s", "time_s")
_QUALITY = ("spread", "repeats", "clean_fraction")


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a probe, one JSON object a line; a last line cut short is left out."""
    rows: list[dict[str, Any]] = []
    lines = read_text(path).splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except ValueError as error:
            if number == len(lines):
                break
            raise InputError(
                f"line {number} is not JSON", at=str(path), help="measure again"
            ) from error
        if not isinstance(row, dict) or "kind" not in row:
            raise InputError(
                f"line {number} is no row of the probe", at=str(path), help="measure again"
            )
        rows.append(row)
    return rows


def merge_rounds(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """One row for each thing measured: the median of its undisturbed rounds.

    Where every round was disturbed the one least so stands: other processes only add time.
    """
    rounds: dict[str, list[Row]] = {}
    for row in rows:
        fixed = {k: v for k, v in row.items() if k not in _TIMES and k not in _QUALITY}
        rounds.setdefault(json.dumps(fixed, sort_keys=True), []).append(row)
    return [_merged(same) for same in rounds.values()]


def _merged(same: Sequence[Row]) -> dict[str, Any]:
    cleanest = max(same, key=lambda row: float(row.get("clean_fraction", 1.0)))
    chosen = [row for row in same if row.get("clean_fraction", 1.0) >= MOSTLY_CLEAN] or [cleanest]
    merged = dict(cleanest)
    for name in (*_TIMES, "spread"):
        values = [row[name] for row in chosen if row.get(name) is not None]
        if values:
            merged[name] = statistics.median(values)
    return merged


def of_kind(rows: Iterable[Row], kind: str) -> list[Row]:
    return [row for row in rows if row["kind"] == kind]


def grouped(rows: Iterable[Row], *names: str) -> dict[tuple[Any, ...], list[Row]]:
    """Rows by the values of the named fields, in order of first appearance."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in names), []).append(row)
    return groups
