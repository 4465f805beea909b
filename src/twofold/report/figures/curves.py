"""Loss against wall time: the whole curves, and the ends of complete schedules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from twofold.report import wording
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
from twofold.report.figures.naming import Name, last_of_each, room_for_names, write_names
from twofold.report.figures.scale import Scale, scale_for
from twofold.report.markup import Markup, join, tag

_CLOCK = "seconds on the training clock, log scale"


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """One run: (seconds, loss) in the order of time."""

    arm: str
    colour: str
    shape: Shape
    points: tuple[tuple[float, float], ...]
    tip: str


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """The end of one complete schedule. `claimed` marks the length the claim is read at."""

    arm: str
    colour: str
    shape: Shape
    time_s: float
    loss: float
    claimed: bool
    tip: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Crossing:
    """Where a seed of an arm, interpolated between its ends, meets the target."""

    colour: str
    time_s: float
    tip: str


def curve_chart(curves: Sequence[Curve], *, width: float) -> Markup:
    """Thin lines, one a run, on a log time axis; the early fall above the frame is cut off."""
    box, height = _box(width, [c.arm for c in curves])
    down = scale_for(_interesting(curves), box.bottom, box.top)
    shown_s = [t for c in curves for t, loss in c.points if loss <= down.high]
    across = scale_for(shown_s, box.left, box.right, log=True, margin=0.02)
    clip = f"curves-{width:.0f}"
    names = [
        Name(arm=c.arm, colour=c.colour, shape=c.shape, x=across.at(t), y=down.clamp(loss))
        for c in curves
        for t, loss in c.points[-1:]
    ]
    return canvas(
        width,
        height,
        tag(
            "clipPath",
            tag("rect", x=box.left, y=box.top, width=box.width, height=box.height),
            id=clip,
        ),
        bottom_axis(box, across, wording.short, _CLOCK),
        left_axis(box, down, wording.short, "training loss, nats per token"),
        [
            tipped(
                c.tip,
                path([(across.at(t), down.at(y)) for t, y in c.points], f"curve {c.colour}", clip),
            )
            for c in curves
        ],
        write_names(last_of_each(names), box, width),
        label="Training loss against wall time, one thin line a run",
        describe=_listing({c.arm: c.points[-1] for c in curves}),
    )


def end_chart(
    ends: Sequence[End], crossings: Sequence[Crossing], target: float | None, *, width: float
) -> Markup:
    """One mark a run at the end of its schedule, filled where the claim is read."""
    box, height = _box(width, [e.arm for e in ends])
    times_s = [e.time_s for e in ends] + [c.time_s for c in crossings]
    across = scale_for(times_s, box.left, box.right, log=True)
    losses = [e.loss for e in ends] + ([target] if target is not None else [])
    down = scale_for(losses, box.bottom, box.top)
    names = [
        Name(arm=e.arm, colour=e.colour, shape=e.shape, x=across.at(e.time_s), y=down.at(e.loss))
        for e in ends
    ]
    return canvas(
        width,
        height,
        bottom_axis(box, across, wording.short, _CLOCK),
        left_axis(box, down, wording.short, "held-out loss, nats per token"),
        _target(target, crossings, box, across, down) if target is not None else None,
        [_end(e, across, down) for e in ends],
        write_names(last_of_each(names), box, width),
        label="Held-out loss at the end of every complete run, against wall time",
        describe=_listing({e.arm: (e.time_s, e.loss) for e in ends if e.claimed}),
    )


def _box(width: float, arms: Sequence[str]) -> tuple[Box, float]:
    right_px, under_px = room_for_names(arms, width)
    bottom = 280.0 if width <= NARROW else 350.0
    return Box(left=44, top=28, right=width - right_px, bottom=bottom), bottom + 42 + under_px


def _interesting(curves: Sequence[Curve]) -> list[float]:
    """The ends of the runs and some way above: the first steps would squeeze all the rest."""
    lasts = [c.points[-1][1] for c in curves]
    losses = [loss for c in curves for _, loss in c.points]
    ceiling = max(lasts) + max(1.4 * (max(lasts) - min(losses)), 0.35)
    return [min(losses), min(max(losses), ceiling)]


def _end(end: End, across: Scale, down: Scale) -> Markup:
    x, y = across.at(end.time_s), down.at(end.loss)
    style, radius = ("mark", 4.8) if end.claimed else ("hollow", 3.8)
    return tipped(end.tip, mark(end.shape, x, y, radius, f"{style} {end.colour}"))


def _target(
    target: float, crossings: Sequence[Crossing], box: Box, across: Scale, down: Scale
) -> Markup:
    y = down.at(target)
    ticks = [(across.at(c.time_s), c) for c in crossings]
    return join(
        line(box.left, y, box.right, y, "reference strong"),
        text(box.left + 6, y - 6, f"target {wording.digits(target)}", class_="note halo"),
        [tipped(c.tip, line(x, y - 8, x, y + 8, f"crossing {c.colour}")) for x, c in ticks],
    )


def _listing(ends: dict[str, tuple[float, float]]) -> str:
    return "; ".join(
        f"{arm} ends at {wording.nats(loss)} after {wording.seconds(time_s)}"
        for arm, (time_s, loss) in ends.items()
    )
