"""Labels that fit their place and do not run into one another."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from twofold.report.figures.frame import FONT_PX, Anchor, Box, text
from twofold.report.markup import Markup, join


def text_width(content: str) -> float:
    """Pixels, from the wide side: system fonts differ, and a label must not run into another."""
    return FONT_PX * sum(
        1.0 if unicodedata.east_asian_width(c) in "WF" else 0.74 if c.isupper() else 0.59
        for c in content
    )


def fit(content: str, width: float) -> str:
    """The content, cut with an ellipsis where it is wider than `width` pixels."""
    if text_width(content) <= width:
        return content
    kept = content
    while kept and text_width(kept + "…") > width:
        kept = kept[:-1]
    return kept.rstrip() + "…"


def spread(positions: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Moves label positions apart to at least `gap`, keeping their order, inside low..high."""
    order = sorted(range(len(positions)), key=lambda i: positions[i])
    placed = list(positions)
    floor = low
    for i in order:
        placed[i] = max(placed[i], floor)
        floor = placed[i] + gap
    ceiling = high
    for i in reversed(order):
        placed[i] = min(placed[i], ceiling)
        ceiling = placed[i] - gap
    return placed


def place_labels(
    spots: Sequence[tuple[float, float]],
    labels: Sequence[str],
    box: Box,
    *,
    radii: Sequence[float] | None = None,
    obstacles: Sequence[Box] = (),
) -> Markup:
    """Names beside their points where they run into nothing, and left out where they would.

    What is left out is still told on hover and in the table under the figure.
    """
    radii = radii or [5.0] * len(spots)
    taken = list(obstacles) + [
        Box(left=x - r, top=y - r, right=x + r, bottom=y + r)
        for (x, y), r in zip(spots, radii, strict=True)
    ]
    drawn: list[Markup] = []
    for (x, y), label, r in zip(spots, labels, radii, strict=True):
        width = text_width(label)
        for dx, dy, anchor in _label_offsets(r):
            left = x + dx - {"start": 0.0, "middle": width / 2, "end": width}[anchor]
            area = Box(left=left, top=y + dy - 10, right=left + width, bottom=y + dy + 3)
            if _inside(area, box) and not any(overlap(area, other) for other in taken):
                taken.append(area)
                drawn.append(text(x + dx, y + dy, label, class_="label halo", anchor=anchor))
                break
    return join(drawn)


def _label_offsets(radius: float) -> list[tuple[float, float, Anchor]]:
    r = radius + 4
    return [
        (r, 4.0, "start"), (-r, 4.0, "end"), (0.0, -r, "middle"), (0.0, r + 10, "middle"),
        (r, -9.0, "start"), (r, 17.0, "start"), (-r, -9.0, "end"), (-r, 17.0, "end"),
        (radius, r + 11, "end"), (radius, -r - 2, "end"),
        (r, -20.0, "start"), (r, 28.0, "start"), (-r, -20.0, "end"), (-r, 28.0, "end"),
    ]  # fmt: skip


def overlap(a: Box, b: Box) -> bool:
    return a.left < b.right and b.left < a.right and a.top < b.bottom and b.top < a.bottom


def _inside(area: Box, box: Box) -> bool:
    return (
        box.left <= area.left
        and area.right <= box.right
        and box.top <= area.top
        and area.bottom <= box.bottom
    )
