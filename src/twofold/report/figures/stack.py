"""Predicted parts stacked to their sum, with what was measured beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from twofold.report import wording
from twofold.report.figures.frame import line, text, tipped
from twofold.report.figures.labels import text_width
from twofold.report.figures.rows import Row, row_chart
from twofold.report.figures.scale import Scale
from twofold.report.markup import Markup, join, tag


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """One arm: named parts in a fixed order, and the measured total."""

    label: str
    parts: tuple[tuple[str, float], ...]
    measured: float | None

    @property
    def predicted(self) -> float:
        return sum(value for _, value in self.parts)


def stack_chart(
    stacks: Sequence[Stack],
    form: Callable[[float], str],
    unit: float,
    *,
    width: float,
    axis: str,
    label: str,
    colours: Callable[[str], str],
) -> Markup:
    """`form` writes a value in words, the axis is in `unit`s; `colours` gives a part's class."""
    longest = max(max(s.predicted, s.measured or 0.0) for s in stacks) / unit
    return row_chart(
        [
            Row(label=s.label, value=_shown(s, form), draw=_bars(s, form, unit, colours))
            for s in stacks
        ],
        lambda start, end: Scale(low=0.0, high=longest * 1.04, start=start - 6, end=end),
        wording.short,
        width=width,
        axis=axis,
        label=label,
        describe="; ".join(
            f"{s.label}: "
            + ", ".join(f"{name} {form(value)}" for name, value in s.parts)
            + f", measured {form(s.measured) if s.measured is not None else 'not'}"
            for s in stacks
        ),
        row_px=40,
    )


def _shown(stack: Stack, form: Callable[[float], str]) -> str:
    if stack.measured is None:
        return f"{form(stack.predicted)} predicted"
    return f"{form(stack.predicted)} → {form(stack.measured)}"


def _bars(
    stack: Stack, form: Callable[[float], str], unit: float, colours: Callable[[str], str]
) -> Callable[[Scale, float], Markup]:
    def draw(scale: Scale, y: float) -> Markup:
        ends = list(accumulate((value / unit for _, value in stack.parts), initial=0.0))
        measured_x = None if stack.measured is None else scale.at(stack.measured / unit)
        return join(
            [
                tipped(
                    f"{name}: {form(value)}",
                    _part(name, scale.at(start), scale.at(end), y, colours(name), measured_x),
                )
                for (name, value), (start, end) in zip(stack.parts, pairwise(ends), strict=True)
            ],
            None
            if stack.measured is None or measured_x is None
            else tipped(
                f"{stack.label}: measured {form(stack.measured)}",
                line(measured_x, y - 16, measured_x, y + 16, "measured"),
            ),
        )

    return draw


def _part(
    name: str, x: float, end: float, y: float, colour: str, measured_x: float | None
) -> Markup:
    """A segment, named inside where the name fits and the measured line does not cross it."""
    label_end = x + 5 + text_width(name)
    crossed = measured_x is not None and x < measured_x < label_end + 3
    return join(
        tag("rect", x=x, y=y - 11, width=max(end - x - 1, 0.5), height=22, class_=f"bar {colour}"),
        text(x + 5, y + 4, name, class_="in-bar") if label_end < end and not crossed else None,
    )
