"""Predicted against measured, with the line of equality and a band of 20 % about it."""

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
    panels,
    text,
    tipped,
)
from twofold.report.figures.labels import fit, place_labels
from twofold.report.figures.scale import Scale, scale_for
from twofold.report.markup import Markup, join, number, tag

BAND = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """`low`..`high` is what the prediction allowed for, None where it said nothing."""

    label: str
    predicted: float
    measured: float
    low: float | None
    high: float | None
    colour: str
    shape: Shape
    tip: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One quantity. `scale` divides values for the axis, whose unit is in `unit`."""

    title: str
    unit: str
    points: tuple[Point, ...]
    form: Callable[[float], str]


def scatter_chart(charts: Sequence[Panel], *, width: float, label: str) -> Markup:
    least = 240.0 if width > NARROW else width
    height = 310.0 if width > NARROW else 330.0
    boxes = panels(width, len(charts), least=least, height=height, gap=22)
    return canvas(
        width,
        max(box.bottom for box in boxes),
        [_panel(chart, box) for chart, box in zip(charts, boxes, strict=True)],
        label=label,
        describe="; ".join(point.tip for chart in charts for point in chart.points),
    )


def _panel(chart: Panel, outer: Box) -> Markup:
    box = Box(
        left=outer.left + 40, top=outer.top + 44, right=outer.right - 6, bottom=outer.bottom - 42
    )
    numbers = [v for p in chart.points for v in (p.predicted, p.measured, p.low, p.high) if v]
    across = scale_for(numbers, box.left, box.right, log=True, margin=0.12, least_ratio=3)
    down = Scale(low=across.low, high=across.high, start=box.bottom, end=box.top, log=True)
    names = [fit(p.label, box.width * 0.7) for p in chart.points]
    spots = [(across.at(p.predicted), down.at(p.measured)) for p in chart.points]
    return join(
        text(outer.left, outer.top + 14, chart.title, class_="heading"),
        _band(box, across, down),
        bottom_axis(box, across, chart.form, f"predicted, {chart.unit}", most=4),
        left_axis(box, down, chart.form, f"measured, {chart.unit}", most=4),
        line(box.left, box.bottom, box.right, box.top, "reference"),
        [_point(p, across, down) for p in chart.points],
        place_labels(spots, names, box, obstacles=_whiskers(chart, across, down)),
    )


def _band(box: Box, across: Scale, down: Scale) -> Markup:
    """The region where the measured value is within 20 % of the predicted one."""
    low, high = across.low, across.high
    corners = [
        (low, low * (1 + BAND)), (high, high * (1 + BAND)),
        (high, high * (1 - BAND)), (low, low * (1 - BAND)),
    ]  # fmt: skip
    points = []
    for predicted, measured in corners:
        # Where the edge leaves the box the corner slides along it, which keeps its slope.
        over = max(measured / high, 1.0)
        under = min(measured / low, 1.0)
        x = predicted / over / under
        points.append(f"{number(across.at(x))},{number(down.at(measured / over / under))}")
    corner = f"{number(box.right)},{number(box.top)}"
    origin = f"{number(box.left)},{number(box.bottom)}"
    return tag(
        "polygon",
        points=" ".join([points[0], points[1], corner, points[2], points[3], origin]),
        class_="band",
    )


def _whiskers(chart: Panel, across: Scale, down: Scale) -> list[Box]:
    """Where labels may not stand."""
    return [
        Box(
            left=across.at(p.low), right=across.at(p.high),
            top=down.at(p.measured) - 2, bottom=down.at(p.measured) + 2,
        )
        for p in chart.points
        if p.low and p.high
    ]  # fmt: skip


def _point(point: Point, across: Scale, down: Scale) -> Markup:
    x, y = across.at(point.predicted), down.at(point.measured)
    allowed = None
    if point.low and point.high:
        allowed = line(across.at(point.low), y, across.at(point.high), y, f"whisker {point.colour}")
    return tipped(point.tip, allowed, mark(point.shape, x, y, 5, f"mark {point.colour}"))
