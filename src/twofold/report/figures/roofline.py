"""Operator classes under the calibrated roofs, a panel an arm."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from twofold.report import wording
from twofold.report.figures.frame import (
    NARROW,
    Box,
    bottom_axis,
    canvas,
    left_axis,
    mark,
    panels,
    path,
    text,
    tipped,
)
from twofold.report.figures.labels import fit, overlap, place_labels, text_width
from twofold.report.figures.scale import Scale, scale_for
from twofold.report.markup import Markup, join


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorClass:
    """`intensity` is flop per byte moved; `time_fraction` is its share of the step."""

    name: str
    intensity: float
    flop_per_s: float
    time_fraction: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmClasses:
    label: str
    colour: str
    classes: tuple[OperatorClass, ...]


def roofline_chart(
    arms: Sequence[ArmClasses],
    roofs_flop_per_s: dict[str, float],
    roof_bytes_per_s: float | None,
    *,
    width: float,
) -> Markup:
    phone = width <= NARROW
    boxes = panels(
        width, len(arms), least=width if phone else 350.0, height=275 if phone else 300, gap=30
    )
    points = [c for arm in arms for c in arm.classes]
    intensities = [c.intensity for c in points]
    if roof_bytes_per_s:
        intensities += [roof / roof_bytes_per_s for roof in roofs_flop_per_s.values()]
    rates = [c.flop_per_s for c in points] + list(roofs_flop_per_s.values())
    return canvas(
        width,
        max(box.bottom for box in boxes),
        [
            _panel(arm, box, intensities, rates, roofs_flop_per_s, roof_bytes_per_s)
            for arm, box in zip(arms, boxes, strict=True)
        ],
        label="Roofline: operator classes of each arm under the calibrated roofs",
        describe="; ".join(_tip(arm.label, c) for arm in arms for c in arm.classes),
    )


def _panel(
    arm: ArmClasses,
    outer: Box,
    intensities: Sequence[float],
    rates: Sequence[float],
    roofs: dict[str, float],
    roof_bytes_per_s: float | None,
) -> Markup:
    box = Box(
        left=outer.left + 40, top=outer.top + 48, right=outer.right - 4, bottom=outer.bottom - 56
    )
    across = scale_for(intensities, box.left, box.right, log=True, margin=0.08)
    down = scale_for([rate / 1e9 for rate in rates], box.bottom, box.top, log=True, margin=0.08)
    classes = sorted(arm.classes, key=lambda c: -c.time_fraction)
    spots = [(across.at(c.intensity), down.at(c.flop_per_s / 1e9)) for c in classes]
    radii = [3 + 11 * math.sqrt(max(c.time_fraction, 0.0)) for c in classes]
    discs = [
        Box(left=x - r, top=y - r, right=x + r, bottom=y + r)
        for (x, y), r in zip(spots, radii, strict=True)
    ]
    roof_names = [_roof_name(name, roof, box, down, discs) for name, roof in roofs.items()]
    names = [
        f"{fit(c.name, box.width * 0.5)} {wording.digits(100 * c.time_fraction, 2)} %"
        for c in classes
    ]
    return join(
        text(outer.left, outer.top + 14, fit(arm.label, outer.width), class_="heading"),
        bottom_axis(box, across, wording.short, "flop per byte moved", most=5),
        left_axis(box, down, wording.short, "Gflop/s", most=5),
        [_roof(roof, roof_bytes_per_s, box, across, down) for roof in roofs.values()],
        [
            tipped(_tip(arm.label, c), mark("circle", x, y, radius, f"bubble {arm.colour}"))
            for c, (x, y), radius in zip(classes, spots, radii, strict=True)
        ],
        [
            text(place.right, place.bottom - 4, words, class_="note halo", anchor="end")
            for words, place in roof_names
        ],
        place_labels(spots, names, box, radii=radii, obstacles=[place for _, place in roof_names]),
    )


def _roof(
    roof: float, roof_bytes_per_s: float | None, box: Box, across: Scale, down: Scale
) -> Markup:
    """Bandwidth times intensity up to the ridge, then the flat rate."""
    flat = down.at(roof / 1e9)
    if not roof_bytes_per_s:
        return path([(box.left, flat), (box.right, flat)], "roof")
    ridge = roof / roof_bytes_per_s
    start = max(across.low, down.low * 1e9 / roof_bytes_per_s)
    if ridge <= start:
        return path([(box.left, flat), (box.right, flat)], "roof")
    foot = (across.at(start), down.at(start * roof_bytes_per_s / 1e9))
    return path([foot, (across.at(ridge), flat), (box.right, flat)], "roof")


def _roof_name(
    name: str, roof: float, box: Box, down: Scale, discs: Sequence[Box]
) -> tuple[str, Box]:
    """A roof's name and its place at the right end, over its line or, past a disc, under it."""
    words = fit(name, 90)
    flat = down.at(roof / 1e9)
    width = text_width(words)
    places = [
        Box(left=right - width, top=top, right=right, bottom=top + 17)
        for top in (flat - 18, flat + 1)
        for right in (box.right - 2, box.right - 44)
    ]
    free = [place for place in places if not any(overlap(place, disc) for disc in discs)]
    return words, (free or places)[0]


def _tip(arm: str, c: OperatorClass) -> str:
    rate = wording.quantity(c.flop_per_s, "flop/s")
    return (
        f"{arm}, {c.name}: {rate} at {wording.digits(c.intensity)} flop per byte, "
        f"{wording.percent(c.time_fraction)} of the step"
    )
