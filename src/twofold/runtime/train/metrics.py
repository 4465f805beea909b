"""`metrics.jsonl`: one JSON object a line, continued where a resumed run takes up."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from twofold.document import write_text
from twofold.errors import EnvironmentLack

Row = dict[str, Any]


class MetricsFile:
    """Appends rows; on resume, rows of steps that will be done again move to a file
    beside it first (`metrics.lost.jsonl`).

    A number that is not finite, as of a run that diverged, is written as null: JSON has no NaN.
    Without a path nothing is written: ranks other than the first have nothing to say.
    """

    def __init__(self, path: Path | None, *, keep_steps: int) -> None:
        self.path = path
        self._stream: TextIO | None = None
        self._guarded(lambda: self._trim(keep_steps))

    def __enter__(self) -> MetricsFile:
        self._guarded(self._open)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._stream is not None:
            self._stream.close()

    def write(self, row: Row) -> None:
        def append() -> None:
            if self._stream is None:
                return
            self._stream.write(json.dumps(_strict(row), allow_nan=False) + "\n")
            self._stream.flush()

        self._guarded(append)

    def _open(self) -> None:
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._stream = self.path.open("a", encoding="utf-8")

    def _trim(self, keep_steps: int) -> None:
        if self.path is None or not self.path.exists():
            return
        kept, lost = [], []
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if keep_steps and row.get("step", keep_steps + 1) <= keep_steps:
                kept.append(line)
            else:
                lost.append(line)
        if lost:
            with self.path.with_suffix(".lost.jsonl").open("a", encoding="utf-8") as stream:
                stream.writelines(line + "\n" for line in lost)
        write_text(self.path, "".join(line + "\n" for line in kept))

    def _guarded(self, action: Any) -> None:
        try:
            action()
        except OSError as error:
            raise EnvironmentLack(
                f"metrics cannot be written: {error.strerror}",
                at=str(self.path),
                help="check free space and permission; then resume the run",
            ) from error


def _strict(value: Any) -> Any:
    """The value with null for every number that JSON cannot hold."""
    if isinstance(value, dict):
        return {key: _strict(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_strict(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
