"""One dot a run in rows of arms, the mean as a tick."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from twofold.report import wording
from twofold.report.figures.frame import Box, Shape, line, mark, text, tipped
from twofold.report.figures.rows import Row, row_chart
from twofold.report.figures.scale import Scale, scale_for
from twofold.report.markup import Markup, join


@dataclass(frozen=True, slots=True, kw_only=True)
class Strip:
    """`dots` are (tip, value)."""

    label: str
    colour: str
    shape: Shape
    dots: tuple[tuple[str, float], ...]

    @property
    def mean(self) -> float:
        return sum(value for _, value in self.dots) / len(self.dots)


def strip_chart(
    strips: Sequence[Strip], target: float | None, *, width: float, axis: str, label: str
) -> Markup:
    numbers = [value for s in strips for _, value in s.dots]
    if target is not None:
        numbers.append(target)
    return row_chart(
        [Row(label=s.label, value=f"mean {wording.digits(s.mean)}", draw=_dots(s)) for s in strips],
        lambda start, end: scale_for(numbers, start, end),
        wording.short,
        width=width,
        axis=axis,
        label=label,
        describe="; ".join(f"{s.label} mean {wording.digits(s.mean)}" for s in strips),
        under=lambda box, scale: _target(target, box, scale),
        head_px=24,
    )


def _dots(strip: Strip) -> Callable[[Scale, float], Markup]:
    def draw(scale: Scale, y: float) -> Markup:
        mean = scale.at(strip.mean)
        return join(
            line(mean, y - 10, mean, y + 10, f"whisker {strip.colour}"),
            [
                tipped(tip, mark(strip.shape, scale.at(value), y, 4.2, f"bubble {strip.colour}"))
                for tip, value in strip.dots
            ],
        )

    return draw


def _target(target: float | None, box: Box, scale: Scale) -> Markup:
    if target is None:
        return Markup()
    x = scale.at(target)
    return join(
        line(x, box.top, x, box.bottom, "reference strong"),
        text(x, box.top - 8, f"target {wording.digits(target)}", class_="note", anchor="end"),
    )
