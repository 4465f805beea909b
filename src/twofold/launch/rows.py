"""Files that grow while a run writes them: whole JSON lines, and the end of a log."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

Row = dict[str, Any]
_LAST_LINES = 20
_LAST_BYTES = 8192


class Follower:
    """Reads whole JSON lines as they are appended, each once.

    A resumed run puts a shorter file in the place of the old one and goes on appending to it: of
    another file all is read, and what was seen before is passed over.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file, self._offset, self._rest = 0, 0, b""
        self._seen: set[int] = set()
        self.rows()

    def rows(self) -> list[Row]:
        """Those that came since the last call."""
        try:
            with self._path.open("rb") as stream:
                file = os.fstat(stream.fileno()).st_ino
                if file != self._file:
                    self._file, self._offset, self._rest = file, 0, b""
                stream.seek(self._offset)
                content = self._rest + stream.read()
                self._offset = stream.tell()
        except OSError:
            return []
        *lines, self._rest = content.split(b"\n")
        rows = []
        for line in lines:
            mark = hash(line)
            row = None if mark in self._seen else _parse(line)
            self._seen.add(mark)
            if row is not None:
                rows.append(row)
        return rows


def _parse(line: bytes) -> Row | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None


def last_lines(path: Path) -> str:
    """The end of a log; empty where there is none."""
    try:
        with path.open("rb") as stream:
            stream.seek(max(0, path.stat().st_size - _LAST_BYTES))
            lines = stream.read().decode("utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return "\n".join(lines[-_LAST_LINES:])
