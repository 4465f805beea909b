"""Lines of several arms over one pair of axes, with the lines that a target draws."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from twofold.report.figures.frame import (
    NARROW,
    Box,
    Shape,
    bottom_axis,
    canvas,
    left_axis,
    line,
    mark,
    path,
    text,
    tipped,
)
from twofold.report.figures.labels import text_width
from twofold.report.figures.naming import Name, last_of_each, room_for_names, write_names
from twofold.report.figures.scale import Scale, scale_for
from twofold.report.markup import Markup, join, tag

_NAME_PX = 16
"""Of a line of text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """`points` in order; `tips` one a point, or none where the line alone is drawn."""

    arm: str
    colour: str
    shape: Shape
    points: tuple[tuple[float, float], ...]
    tips: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """A line across the chart at a value of one axis."""

    value: float
    name: str
    vertical: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    name: str
    form: Callable[[float], str]
    log: bool = False
    low: float | None = None
    high: float | None = None


def series_chart(
    series: Sequence[Series],
    across: Axis,
    up: Axis,
    *,
    width: float,
    label: str,
    limits: Sequence[Limit] = (),
) -> Markup:
    arms = [s.arm for s in series]
    right_px, under_px = room_for_names(arms, width)
    bottom = 260.0 if width <= NARROW else 310.0
    box = Box(left=50, top=30, right=width - right_px, bottom=bottom)
    xs = [x for s in series for x, _ in s.points] + [li.value for li in limits if li.vertical]
    ys = [y for s in series for _, y in s.points] + [li.value for li in limits if not li.vertical]
    x_scale = _scale(xs, across, box.left, box.right)
    y_scale = _scale(ys, up, box.bottom, box.top)
    clip = f"series-{abs(hash((label, width))) % 10**8}"
    names = [
        Name(arm=s.arm, colour=s.colour, shape=s.shape, x=x_scale.clamp(x), y=y_scale.clamp(y))
        for s in series
        for x, y in s.points[-1:]
    ]
    return canvas(
        width,
        bottom + 42 + under_px,
        tag(
            "clipPath",
            tag("rect", x=box.left, y=box.top - 6, width=box.width, height=box.height + 12),
            id=clip,
        ),
        bottom_axis(box, x_scale, across.form, across.name),
        left_axis(box, y_scale, up.form, up.name),
        [_limit(li, box, x_scale, y_scale) for li in limits],
        [_line(s, x_scale, y_scale, clip) for s in series],
        write_names(last_of_each(names), box, width),
        label=label,
        describe="; ".join(f"{s.arm}: {s.tips[-1]}" for s in series if s.tips),
    )


def _scale(values: Sequence[float], axis: Axis, start: float, end: float) -> Scale:
    scale = scale_for(values, start, end, log=axis.log)
    low = scale.low if axis.low is None else axis.low
    high = scale.high if axis.high is None else axis.high
    return Scale(low=low, high=high, start=start, end=end, log=axis.log)


def _line(series: Series, across: Scale, up: Scale, clip: str) -> Markup:
    spots = [(across.at(x), up.at(y)) for x, y in series.points]
    return join(
        tipped(series.arm, path(spots, f"curve {series.colour}", clip)),
        [
            tipped(tip, mark(series.shape, x, y, 4.4, f"mark {series.colour}"))
            for (x, y), tip, inside in zip(
                spots, series.tips, _inside(series, across, up), strict=False
            )
            if inside
        ],
    )


def _inside(series: Series, across: Scale, up: Scale) -> list[bool]:
    return [across.low <= x <= across.high and up.low <= y <= up.high for x, y in series.points]


def _limit(limit: Limit, box: Box, across: Scale, up: Scale) -> Markup:
    if limit.vertical:
        x = across.clamp(limit.value)
        room = text_width(limit.name) + 6
        anchor = "end" if x + room > box.right else "start"
        shift = -5 if anchor == "end" else 5
        return join(
            line(x, box.top, x, box.bottom, "reference strong"),
            text(
                x + shift,
                box.top + 12,
                limit.name,
                class_="note halo",
                anchor="end" if anchor == "end" else "start",
            ),
        )
    y = up.clamp(limit.value)
    below = y < box.top + _NAME_PX  # the axis has its name there
    return join(
        line(box.left, y, box.right, y, "reference strong"),
        text(box.left + 6, y + 14 if below else y - 6, limit.name, class_="note halo"),
    )
