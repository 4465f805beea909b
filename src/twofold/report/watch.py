"""Progress for a person: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

from types import TracebackType
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

_LINE_EVERY = 0.25


class Watcher:
    """Draws what `measure` tells: a line for every note, one bar for counts, one for steps.

    Off a terminal the bars become a line for each quarter done, so that a log stays readable.
    """

    def __init__(self, stream: TextIO) -> None:
        self.console = Console(file=stream, highlight=False, soft_wrap=True)
        self.bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[said]}"),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        self._tasks: dict[str, Any] = {}
        self._said: dict[str, float] = {}
        self._num_steps = 0
        self._tokens_per_step = 0

    def __enter__(self) -> Watcher:
        self.bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.bars.stop()

    def note(self, text: str) -> None:
        self.console.print(text, style="dim" if self.console.is_terminal else None, markup=False)

    def advance(self, what: str, done: float, total: float) -> None:
        self._draw(what, done, total, f"{done:g} of {total:g}")
        if not self.console.is_terminal:
            share = done / total if total else 1.0
            if share - self._said.get(what, -1.0) >= _LINE_EVERY or (done >= total > 0):
                if self._said.get(what) != share:
                    self.console.print(f"{what}: {done:g} of {total:g}", markup=False)
                self._said[what] = share if done < total else -1.0

    def detail(self, row: dict[str, Any]) -> None:
        if row.get("event") == "start":
            self._num_steps = int(row["num_steps"])
            self._tokens_per_step = int(row["tokens_per_step"])
        elif row.get("event") == "step" and self._num_steps:
            rate = self._tokens_per_step / max(1e-9, float(row["step_time_s"]))
            said = f"step {row['step']}/{self._num_steps}  {rate:,.0f} tokens/s"
            self._draw("training", row["step"], self._num_steps, f"{said}  loss {row['loss']:.3f}")

    def _draw(self, what: str, done: float, total: float, said: str) -> None:
        if what not in self._tasks:
            self._tasks[what] = self.bars.add_task(what, total=total, said=said)
        self.bars.update(self._tasks[what], completed=done, total=total, said=said)
