"""The form that most figures share: rows of a name, marks on one horizontal axis, and a value.

On a page name and value stand left and right of the marks; on a phone, on a line above them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from twofold.report.figures.frame import NARROW, Anchor, Box, bottom_axis, canvas, text
from twofold.report.figures.labels import fit, text_width
from twofold.report.figures.scale import Scale
from twofold.report.markup import Markup, join, tag

_HEADING_PX = 34
_AXIS_PX = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """`draw` makes the marks from the scale and the y of the row's middle; None is a heading."""

    label: str
    value: str = ""
    draw: Callable[[Scale, float], Markup] | None = None


def row_chart(
    rows: Sequence[Row],
    scale: Callable[[float, float], Scale],
    form: Callable[[float], str],
    *,
    width: float,
    axis: str,
    label: str,
    describe: str = "",
    under: Callable[[Box, Scale], Markup] | None = None,
    head_px: float = 10,
    row_px: float = 32,
) -> Markup:
    """`scale` is made for the pixels left to the marks; `under` draws what lies below them."""
    phone = width <= NARROW
    name_px = 0.0 if phone else min(230.0, max(text_width(r.label) for r in rows) + 16)
    value_px = 0.0 if phone else min(210.0, max(text_width(r.value) for r in rows) + 16)
    heights = [_HEADING_PX if r.draw is None else row_px + (14 if phone else 0) for r in rows]
    box = Box(
        left=max(name_px, 8),
        top=head_px,
        right=width - max(value_px, 8),
        bottom=head_px + sum(heights),
    )
    across = scale(box.left + 6, box.right - 6)
    body: list[Markup] = []
    y = head_px
    for row, height in zip(rows, heights, strict=True):
        body.append(_row(row, across, box, y, height, width, phone))
        y += height
    return canvas(
        width,
        box.bottom + _AXIS_PX,
        bottom_axis(box, across, form, axis),
        under(box, across) if under else None,
        body,
        label=label,
        describe=describe,
    )


def _row(
    row: Row, scale: Scale, box: Box, y: float, height: float, width: float, phone: bool
) -> Markup:
    if row.draw is None:
        return _backed(0, y + height - 9, fit(row.label, width), "heading")
    if phone:
        room = width - (text_width(row.value) + 12 if row.value else 0)
        return join(
            row.draw(scale, y + 14 + (height - 14) / 2),
            _backed(0, y + 13, fit(row.label, room), "label"),
            _backed(width, y + 13, row.value, "value", anchor="end") if row.value else None,
        )
    middle = y + height / 2
    return join(
        text(0, middle + 4, fit(row.label, box.left - 10), class_="label"),
        text(width, middle + 4, row.value, class_="value", anchor="end") if row.value else None,
        row.draw(scale, middle),
    )


def _backed(x: float, y: float, content: str, class_: str, *, anchor: Anchor = "start") -> Markup:
    """Text on a ground of its own, so that no grid line runs through it."""
    width = text_width(content) + 4
    left = x - 2 if anchor == "start" else x - width + 2
    return join(
        tag("rect", x=left, y=y - 12, width=width, height=16, class_="ground"),
        text(x, y, content, class_=class_, anchor=anchor),
    )
