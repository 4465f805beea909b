"""A few requests as bars: waiting and prompt first, then every token as a tick."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from twofold.report import wording
from twofold.report.figures.frame import line, tipped
from twofold.report.figures.rows import Row, row_chart
from twofold.report.figures.scale import Scale
from twofold.report.markup import Markup, tag


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """One request; times from the left edge. `met` says whether it was within the target."""

    label: str
    intended_s: float
    chunks_s: tuple[float, ...]
    met: bool
    colour: str
    tip: str


def timeline_chart(
    groups: Sequence[tuple[str, Sequence[Told]]], *, width: float, label: str
) -> Markup:
    """A heading for each group, then its requests; all on one axis of seconds."""
    rows = []
    latest = 0.0
    for heading, requests in groups:
        rows.append(Row(label=heading))
        for told in requests:
            latest = max(latest, told.chunks_s[-1])
            rows.append(Row(label=told.label, value=_value(told), draw=_draw(told)))
    return row_chart(
        rows,
        lambda low, high: Scale(low=0.0, high=latest or 1.0, start=low, end=high),
        wording.short,
        width=width,
        axis="seconds",
        label=label,
        row_px=20,
    )


def _value(told: Told) -> str:
    return wording.seconds(told.chunks_s[0] - told.intended_s) + ("" if told.met else " ✗")


def _draw(told: Told) -> Callable[[Scale, float], Markup]:
    def draw(scale: Scale, y: float) -> Markup:
        begin, first, last = (
            scale.at(t) for t in (told.intended_s, told.chunks_s[0], told.chunks_s[-1])
        )
        return tipped(
            told.tip,
            line(begin, y, first, y, f"whisker {told.colour}"),
            tag(
                "rect", x=first, y=y - 6, width=max(last - first, 1.5), height=12,
                class_=f"wash {told.colour}",
            ),
            [line(scale.at(t), y - 6, scale.at(t), y + 6, f"mean {told.colour}")
             for t in told.chunks_s],
        )  # fmt: skip

    return draw
