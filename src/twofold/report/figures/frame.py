"""What all figures share: axes, marks and text on a canvas of fixed width.

Coordinates are pixels of the viewBox. Every figure is drawn twice, for a page and for a phone,
so that text keeps its size instead of shrinking with the drawing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from twofold.report.figures.scale import Scale
from twofold.report.markup import Child, Markup, join, number, tag

WIDE = 800
NARROW = 328
FONT_PX = 12.5
LINE_PX = 17

Shape = Literal["circle", "square", "triangle", "diamond", "down", "bar", "cross"]
SHAPES: tuple[Shape, ...] = ("circle", "diamond", "square", "triangle", "down", "bar", "cross")
Anchor = Literal["start", "middle", "end"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    left: float
    top: float
    right: float
    bottom: float

    @property
    def width(self) -> float:
        return self.right - self.left

    @property
    def height(self) -> float:
        return self.bottom - self.top


def canvas(width: float, height: float, *children: Child, label: str, describe: str = "") -> Markup:
    """The root element. `label` names the figure, `describe` tells what it shows."""
    return tag(
        "svg",
        tag("desc", describe) if describe else None,
        *children,
        viewBox=f"0 0 {number(width)} {number(height)}",
        role="img",
        aria_label=label,
    )


def text(
    x: float, y: float, content: str, *, class_: str | None = None, anchor: Anchor = "start"
) -> Markup:
    shown = None if anchor == "start" else anchor
    return tag("text", content, x=x, y=y, class_=class_, text_anchor=shown)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    return tag("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def path(points: Iterable[tuple[float, float]], class_: str, clip: str | None = None) -> Markup:
    data = "".join(
        f"{'M' if i == 0 else 'L'}{number(x)} {number(y)}" for i, (x, y) in enumerate(points)
    )
    return tag("path", d=data, class_=class_, clip_path=f"url(#{clip})" if clip else None)


def tipped(tip: str, *children: Child, class_: str | None = None) -> Markup:
    """Marks with a sentence shown on hover; the script only restyles it."""
    return tag("g", tag("title", tip), *children, class_=class_)


def mark(shape: Shape, x: float, y: float, radius: float, class_: str) -> Markup:
    """A point mark of about the same area whatever its shape."""
    r = radius
    if shape == "circle":
        return tag("circle", cx=x, cy=y, r=r, class_=class_)
    corners: dict[str, list[tuple[float, float]]] = {
        "square": [(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
        "triangle": [(0, -1.2), (1.15, 0.85), (-1.15, 0.85)],
        "diamond": [(0, -1.3), (1.3, 0), (0, 1.3), (-1.3, 0)],
        "down": [(0, 1.2), (1.15, -0.85), (-1.15, -0.85)],
        "bar": [(-0.55, -1.3), (0.55, -1.3), (0.55, 1.3), (-0.55, 1.3)],
        "cross": [
            (-0.4, -1.2), (0.4, -1.2), (0.4, -0.4), (1.2, -0.4), (1.2, 0.4), (0.4, 0.4),
            (0.4, 1.2), (-0.4, 1.2), (-0.4, 0.4), (-1.2, 0.4), (-1.2, -0.4), (-0.4, -0.4),
        ],
    }  # fmt: skip
    points = " ".join(f"{number(x + dx * r)},{number(y + dy * r)}" for dx, dy in corners[shape])
    return tag("polygon", points=points, class_=class_)


def bottom_axis(
    box: Box, scale: Scale, form: Callable[[float], str], label: str, *, most: int | None = None
) -> Markup:
    """Grid lines, tick labels and the name of the axis with its unit, under the box."""
    ticks = scale.ticks(most or max(2, int(box.width // 75)))
    return join(
        [line(scale.at(t), box.top, scale.at(t), box.bottom, "grid") for t in ticks],
        line(box.left, box.bottom, box.right, box.bottom, "axis"),
        [
            text(scale.at(t), box.bottom + 16, form(t), class_="tick", anchor="middle")
            for t in ticks
        ],
        text(box.right, box.bottom + 33, label, class_="name", anchor="end"),
    )


def left_axis(
    box: Box, scale: Scale, form: Callable[[float], str], label: str, *, most: int | None = None
) -> Markup:
    """Grid lines, tick labels left of the box, and the name lying flat above them."""
    ticks = scale.ticks(most or max(2, int(box.height // 42)))
    return join(
        [line(box.left, scale.at(t), box.right, scale.at(t), "grid") for t in ticks],
        [text(box.left - 7, scale.at(t) + 4, form(t), class_="tick", anchor="end") for t in ticks],
        text(box.left, box.top - 10, label, class_="name") if label else None,
    )


def panels(width: float, num: int, *, least: float, height: float, gap: float) -> list[Box]:
    """Equal boxes left to right, as many a row as keep `least` pixels of width."""
    columns = max(1, min(num, int((width + gap) // (least + gap))))
    each = (width - gap * (columns - 1)) / columns
    return [
        Box(
            left=(i % columns) * (each + gap),
            top=(i // columns) * height,
            right=(i % columns) * (each + gap) + each,
            bottom=(i // columns + 1) * height,
        )
        for i in range(num)
    ]
