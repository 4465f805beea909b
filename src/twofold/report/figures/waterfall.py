"""From the baseline's time to the arm's, factor by factor, on a log axis.

On a log axis equal factors are equally long wherever they stand, so the order does not flatter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from twofold.report import wording
from twofold.report.figures.frame import Shape, line, mark, tipped
from twofold.report.figures.rows import Row, row_chart
from twofold.report.figures.scale import Scale, scale_for
from twofold.report.markup import Markup, join, tag


@dataclass(frozen=True, slots=True, kw_only=True)
class Total:
    label: str
    time_s: float
    colour: str
    shape: Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One cause. `low`..`high` is its interval, `first_in` and `last_in` its range by order."""

    label: str
    factor: float
    low: float | None = None
    high: float | None = None
    first_in: float | None = None
    last_in: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """One way to divide the whole factor; its steps multiply to it."""

    title: str
    steps: tuple[Step, ...]


def waterfall(
    start: Total,
    splits: Sequence[Split],
    end: Total,
    *,
    width: float,
    label: str,
    axis: str = "seconds to the end of the run, log scale",
) -> Markup:
    rows = [_total_row(start)]
    numbers = [start.time_s, end.time_s]
    for split in splits:
        rows.append(Row(label=split.title))
        time_s = start.time_s
        for step in split.steps:
            rows.append(_step_row(step, time_s, first=step is split.steps[0]))
            numbers += _ends(step, time_s)
            time_s /= step.factor
    rows += [Row(label="Together"), _total_row(end)]
    parts = "; ".join(
        f"{split.title}: " + ", ".join(f"{s.label} {wording.times(s.factor)}" for s in split.steps)
        for split in splits
    )
    return row_chart(
        rows,
        lambda low, high: scale_for(numbers, low, high, log=True),
        _short_seconds,
        width=width,
        axis=axis,
        label=label,
        describe=f"{start.label} {wording.seconds(start.time_s)}, {end.label} "
        f"{wording.seconds(end.time_s)}. {parts}.",
    )


def _total_row(total: Total) -> Row:
    def draw(scale: Scale, y: float) -> Markup:
        tip = f"{total.label}: {wording.seconds(total.time_s)}"
        return tipped(
            tip, mark(total.shape, scale.at(total.time_s), y, 6.5, f"mark {total.colour}")
        )

    return Row(label=total.label, value=wording.seconds(total.time_s), draw=draw)


def _step_row(step: Step, time_s: float, *, first: bool) -> Row:
    return Row(label=step.label, value=_shown(step), draw=_bar(step, time_s, first=first))


def _shown(step: Step) -> str:
    if step.low is None or step.high is None:
        return wording.times(step.factor)
    return f"{wording.times(step.factor)} ({wording.span(step.low, step.high)})"


def _bar(step: Step, time_s: float, *, first: bool) -> Callable[[Scale, float], Markup]:
    def draw(scale: Scale, y: float) -> Markup:
        begin, end = scale.at(time_s), scale.at(time_s / step.factor)
        colour = "faster" if step.factor >= 1 else "slower"
        return tipped(
            _tip(step),
            None if first else line(begin, y - 24, begin, y - 8, "order"),
            tag(
                "rect", x=min(begin, end), y=y - 8, width=max(abs(end - begin), 1.5), height=16,
                class_=f"bar {colour}",
            ),
            _order_range(step, time_s, scale, y),
            _whisker(step, time_s, scale, y),
        )  # fmt: skip

    return draw


def _order_range(step: Step, time_s: float, scale: Scale, y: float) -> Markup | None:
    if step.first_in is None or step.last_in is None:
        return None
    a, b = scale.at(time_s / step.first_in), scale.at(time_s / step.last_in)
    return join(
        line(a, y + 12, b, y + 12, "order"),
        line(a, y + 9, a, y + 15, "order"),
        line(b, y + 9, b, y + 15, "order"),
    )


def _whisker(step: Step, time_s: float, scale: Scale, y: float) -> Markup | None:
    if step.low is None or step.high is None:
        return None
    a, b = scale.at(time_s / step.low), scale.at(time_s / step.high)
    return join(
        line(a, y, b, y, "error"),
        line(a, y - 4, a, y + 4, "error"),
        line(b, y - 4, b, y + 4, "error"),
    )


def _ends(step: Step, time_s: float) -> list[float]:
    factors = (step.factor, step.low, step.high, step.first_in, step.last_in)
    return [time_s / f for f in factors if f is not None]


def _tip(step: Step) -> str:
    words = [f"{step.label}: {_shown(step)}"]
    if step.first_in is not None and step.last_in is not None:
        words.append(
            f"{wording.times(step.first_in)} when it comes first, "
            f"{wording.times(step.last_in)} when it comes last"
        )
    return "; ".join(words)


def _short_seconds(value: float) -> str:
    return wording.short(value)
