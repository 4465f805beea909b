"""Paired ratios in the order they were run, a panel a result and one for the noise floor."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from twofold.report import wording
from twofold.report.figures.frame import (
    NARROW,
    Box,
    Shape,
    canvas,
    left_axis,
    line,
    mark,
    panels,
    text,
    tipped,
)
from twofold.report.figures.labels import fit
from twofold.report.figures.scale import Scale, scale_for
from twofold.report.markup import Markup, join, tag


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """`pairs` are (name of the pair, ratio) in run order; `mean` lies within `low`..`high`."""

    title: str
    subtitle: str
    pairs: tuple[tuple[str, float], ...]
    mean: float
    low: float | None
    high: float | None
    colour: str
    shape: Shape


def pair_chart(series: Sequence[Series], *, width: float) -> Markup:
    """All panels share one log axis, so that the noise and the gain are seen on one scale."""
    numbers = [1.0]
    for one in series:
        numbers += [v for v in (one.low, one.high, *(r for _, r in one.pairs)) if v is not None]
    least = 170.0 if width > NARROW else width
    boxes = panels(width, len(series), least=least, height=270 if width > NARROW else 230, gap=18)
    return canvas(
        width,
        max(box.bottom for box in boxes),
        [_panel(one, box, numbers) for one, box in zip(series, boxes, strict=True)],
        label="Paired ratios in run order",
        describe="; ".join(
            f"{one.title} {one.subtitle}: "
            + ", ".join(f"{name} {wording.times(ratio)}" for name, ratio in one.pairs)
            for one in series
        ),
    )


def _panel(series: Series, outer: Box, numbers: Sequence[float]) -> Markup:
    box = Box(left=outer.left + 34, top=outer.top + 50, right=outer.right, bottom=outer.bottom - 44)
    down = scale_for(numbers, box.bottom, box.top, log=True)
    return join(
        text(outer.left, outer.top + 14, fit(series.title, outer.width), class_="heading"),
        text(outer.left, outer.top + 31, fit(series.subtitle, outer.width), class_="note"),
        left_axis(box, down, wording.short, "", most=6),
        line(box.left, down.at(1.0), box.right, down.at(1.0), "reference strong"),
        _mean(series, box, down),
        line(box.left, box.bottom, box.right, box.bottom, "axis"),
        _marks(series, box, down),
        text(box.right, box.bottom + 33, "pair, in run order", class_="name", anchor="end"),
    )


def _mean(series: Series, box: Box, down: Scale) -> Markup:
    """The mean as a line over the band of its interval, the value written where there is room."""
    low, high = (series.mean if v is None else v for v in (series.low, series.high))
    top, bottom = down.at(high), down.at(low)
    shown = wording.times(series.mean)
    if series.low is not None and series.high is not None:
        shown += f" ({wording.span(series.low, series.high)})"
    highest = max(high, *(ratio for _, ratio in series.pairs))
    lowest = min(low, *(ratio for _, ratio in series.pairs))
    above = down.at(highest) - 10
    return join(
        tag(
            "rect", x=box.left, y=top, width=box.width, height=max(bottom - top, 1.0),
            class_=f"wash {series.colour}",
        ),
        line(box.left, down.at(series.mean), box.right, down.at(series.mean),
             f"mean {series.colour}"),
        text(box.right, above if above > box.top + 8 else down.at(lowest) + 20, shown,
             class_="value halo", anchor="end"),
    )  # fmt: skip


def _marks(series: Series, box: Box, down: Scale) -> Markup:
    step = box.width / (len(series.pairs) + 1)
    every = max(1, math.ceil(24 / step))
    return join(
        [
            tipped(
                f"{name}: {wording.times(ratio)}",
                mark(series.shape, x, down.at(ratio), 4.4, f"mark {series.colour}"),
                text(x, box.bottom + 16, str(i + 1), class_="tick", anchor="middle")
                if i % every == 0
                else None,
            )
            for i, (name, ratio) in enumerate(series.pairs)
            for x in [box.left + step * (i + 1)]
        ]
    )
