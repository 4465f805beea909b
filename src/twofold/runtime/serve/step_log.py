"""How long steps take while the server answers: what the planner's step curve is fitted to."""

from __future__ import annotations

import json
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TextIO

from twofold.policy.batching import Work


class StepLog:
    """A JSON line for every step: `policy.batching.Work`, and `time_s` from when the step could
    begin (the one before was told, or a request came to an idle engine) until it was told."""

    def __init__(self, file: TextIO | None) -> None:
        self._file = file
        self._begin_s: float | None = None

    def begin(self) -> None:
        """There is work; nothing where a step is under way already."""
        if self._begin_s is None:
            self._begin_s = time.perf_counter()

    def end(self, work: Work, *, rests: bool) -> None:
        """A step was told. With `rests` there is no work left."""
        now_s = time.perf_counter()
        if self._file is not None and self._begin_s is not None:
            row = {**work._asdict(), "time_s": now_s - self._begin_s}
            self._file.write(json.dumps(row) + "\n")
        self._begin_s = None if rests else now_s

    def rest(self) -> None:
        """The work went away unanswered."""
        self._begin_s = None


def opened(path: Path | None) -> AbstractContextManager[TextIO | None]:
    return nullcontext(None) if path is None else path.open("a", encoding="utf-8")
