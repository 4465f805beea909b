"""Rows of the probe, merged over rounds and grouped."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from twofold.document import read_text
from twofold.errors import InputError

Row = Mapping[str, Any]

_TIMES = ("forward_s", "training_s", "time_s")


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
    """One row for each thing measured: the least disturbed time of its rounds.

    Other processes only ever add time, so the smaller lower quartile is nearer the truth.
    """
    merged: dict[str, dict[str, Any]] = {}
    for row in rows:
        key = json.dumps(
            {k: v for k, v in row.items() if k not in (*_TIMES, "spread", "repeats", "clean_fraction")},
            sort_keys=True,
        )
        if key not in merged:
            merged[key] = dict(row)
            continue
        known = merged[key]
        for name in _TIMES:
            if row.get(name) is not None:
                known[name] = min(known[name], row[name])
        for name, better in (("spread", min), ("clean_fraction", max)):
            if name in row:
                known[name] = better(known[name], row[name])
    return list(merged.values())


def of_kind(rows: Iterable[Row], kind: str) -> list[Row]:
    return [row for row in rows if row["kind"] == kind]


def grouped(rows: Iterable[Row], *names: str) -> dict[tuple[Any, ...], list[Row]]:
    """Rows by the values of the named fields, in order of first appearance."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in names), []).append(row)
    return groups
