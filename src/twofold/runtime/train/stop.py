"""The wish to stop, as a signal left it."""

from __future__ import annotations

_stop = False


def request_stop(*_: object) -> None:
    """Signal handler: finish the step, save, and leave."""
    global _stop
    _stop = True


def stop_requested() -> bool:
    return _stop
