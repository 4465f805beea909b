"""What long work tells whoever watches. The CLI draws it; tests and scripts may ignore it."""

from __future__ import annotations

from typing import Protocol

from twofold.host import Contention, wait_until_quiet
from twofold.launch.rows import Row


class Progress(Protocol):
    def note(self, text: str) -> None:
        """Something worth a line: a phase begins, a decision was taken."""

    def advance(self, what: str, done: float, total: float) -> None:
        """`done` of `total` of the thing now under way."""

    def detail(self, row: Row) -> None:
        """A metrics row of the run under way: step, tokens, loss, time."""


class Silent:
    """Watches nothing."""

    def note(self, text: str) -> None: ...

    def advance(self, what: str, done: float, total: float) -> None: ...

    def detail(self, row: Row) -> None: ...


def wait_for_quiet(progress: Progress, max_wait_s: float) -> float:
    """Wait, at most so long, until others leave the cores alone; says so once. Seconds waited."""
    said = False

    def on_wait(waited_s: float, seen: Contention) -> None:
        nonlocal said
        if not said:
            progress.note(
                f"others use {seen.crowded_cores:.1f} cores: waiting up to {max_wait_s:.0f} s "
                "for a quiet machine"
            )
            said = True

    waited_s = wait_until_quiet(max_wait_s, on_wait)
    if said and waited_s >= max_wait_s:
        progress.note("still not quiet; going on, and the evidence will say so")
    return waited_s
