"""Files that grow while a run writes them: whole JSON lines, and the end of a log."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Row = dict[str, Any]
_LAST_LINES = 20
_LAST_BYTES = 8192


class Follower:
    """Reads whole JSON lines as they are appended; survives the file being trimmed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.offset = path.stat().st_size if path.exists() else 0
        self.rest = b""

    def rows(self) -> list[Row]:
        try:
            size = self.path.stat().st_size
            if size < self.offset:
                self.offset, self.rest = size, b""
            if size == self.offset:
                return []
            with self.path.open("rb") as stream:
                stream.seek(self.offset)
                content = self.rest + stream.read()
                self.offset = stream.tell()
        except OSError:
            return []
        *lines, self.rest = content.split(b"\n")
        rows = []
        for line in lines:
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if isinstance(row, dict):
                rows.append(row)
        return rows


def last_lines(path: Path) -> str:
    """The end of a log; empty where there is none."""
    try:
        with path.open("rb") as stream:
            stream.seek(max(0, path.stat().st_size - _LAST_BYTES))
            lines = stream.read().decode("utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return "\n".join(lines[-_LAST_LINES:])
