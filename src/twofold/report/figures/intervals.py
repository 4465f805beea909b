"""Values with their intervals against reference lines (a forest plot)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from twofold.report.figures.frame import Anchor, Box, Shape, line, mark, text, tipped
from twofold.report.figures.labels import text_width
from twofold.report.figures.rows import Row, row_chart
from twofold.report.figures.scale import Scale, scale_for
from twofold.report.markup import Markup, join


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """One row. `low` None draws a one-sided bound. A row without a value is a heading."""

    label: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    shown: str = ""
    tip: str = ""
    colour: str = ""
    shape: Shape = "circle"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    value: float
    name: str
    strong: bool = False


def interval_chart(
    rows: Sequence[Interval],
    references: Sequence[Reference],
    form: Callable[[float], str],
    *,
    width: float,
    axis: str,
    label: str,
    describe: str = "",
    log: bool = False,
) -> Markup:
    numbers = [v for row in rows for v in (row.value, row.low, row.high) if v is not None] + [
        reference.value for reference in references
    ]
    return row_chart(
        [Row(label=r.label, value=r.shown, draw=_marks(r)) for r in rows],
        lambda start, end: scale_for(numbers, start, end, log=log),
        form,
        width=width,
        axis=axis,
        label=label,
        describe=describe,
        under=lambda box, scale: _references(references, box, scale),
        head_px=24,
    )


def _marks(row: Interval) -> Callable[[Scale, float], Markup] | None:
    if row.value is None:
        return None
    value, low, high = row.value, row.low, row.high

    def draw(scale: Scale, y: float) -> Markup:
        first = scale.at(value if low is None else low)
        last = scale.at(value if high is None else high)
        return tipped(
            row.tip,
            line(first, y, last, y, f"whisker {row.colour}"),
            line(first, y - 5, first, y + 5, f"whisker {row.colour}") if low is not None else None,
            line(last, y - 5, last, y + 5, f"whisker {row.colour}") if high is not None else None,
            mark(row.shape, scale.at(value), y, 5, f"mark {row.colour}"),
        )

    return draw


def _references(references: Sequence[Reference], box: Box, scale: Scale) -> Markup:
    ordered = sorted(references, key=lambda reference: reference.value)
    return join([_reference(r, ordered, box, scale) for r in ordered])


def _reference(
    reference: Reference, ordered: Sequence[Reference], box: Box, scale: Scale
) -> Markup:
    """The line with its name above, which keeps clear of its neighbours' names."""
    x = scale.at(reference.value)
    room = text_width(reference.name) + 8
    left = [scale.at(r.value) for r in ordered if r.value < reference.value]
    right = [scale.at(r.value) for r in ordered if r.value > reference.value]
    anchor: Anchor = "middle"
    if right and right[0] - x < room:
        anchor = "end"
    elif (left and x - left[-1] < room) or x < room / 2:
        anchor = "start"
    elif x > box.right - room / 2:
        anchor = "end"
    style = "reference strong" if reference.strong else "reference"
    return join(
        line(x, box.top, x, box.bottom, style),
        text(x, box.top - 8, reference.name, class_="note", anchor=anchor),
    )
