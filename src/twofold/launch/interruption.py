"""Ctrl-C and SIGTERM as a count that a loop looks at, so that neither tears it in the middle."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_ONE_REQUEST_S = 2.0
"""`timeout` and batch systems signal a process and then its group: that is one request."""


class Interruption:
    """`count`: how often it was asked to stop. The second time means at once.

    `asked_at` is the time of day of the first request.
    """

    def __init__(self) -> None:
        self.count = 0
        self.asked_at: float | None = None
        self._one_until = 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in _SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.count and now < self._one_until:
            return
        if not self.count:
            self.asked_at, self._one_until = time.time(), now + _ONE_REQUEST_S
        self.count += 1
