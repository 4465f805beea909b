"""Arms named where they are drawn: beside their last point, or on a phone in rows below."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from twofold.report.figures.frame import LINE_PX, NARROW, Box, Shape, line, mark, text
from twofold.report.figures.labels import fit, spread, text_width
from twofold.report.markup import Markup, join

_ROW_PX = LINE_PX + 3
_MARK_PX = 17


@dataclass(frozen=True, slots=True, kw_only=True)
class Name:
    """An arm and the pixel at which its last mark stands."""

    arm: str
    colour: str
    shape: Shape
    x: float = 0.0
    y: float = 0.0


def last_of_each(names: Iterable[Name]) -> list[Name]:
    """One name an arm, at its rightmost point."""
    last: dict[str, Name] = {}
    for name in names:
        if name.arm not in last or name.x >= last[name.arm].x:
            last[name.arm] = name
    return list(last.values())


def room_for_names(arms: Iterable[str], width: float) -> tuple[float, float]:
    """Pixels kept free (right of the box, under its axis)."""
    if width <= NARROW:
        return 8.0, len(_rows(sorted(set(arms)), width)) * _ROW_PX
    return min(200.0, max(text_width(arm) for arm in arms) + _MARK_PX + 14), 0.0


def write_names(names: Sequence[Name], box: Box, width: float) -> Markup:
    if width <= NARROW:
        return _below(names, box, width)
    names = sorted(names, key=lambda name: name.y)
    heights = spread([name.y for name in names], LINE_PX, box.top + 6, box.bottom - 6)
    x = box.right + 12
    return join(
        [
            join(
                line(n.x + 7, n.y, x - 2, y, f"leader {n.colour}") if n.x < x - 26 else None,
                mark(n.shape, x + 6, y, 4.6, f"mark {n.colour}"),
                text(x + _MARK_PX, y + 4, fit(n.arm, width - x - _MARK_PX), class_="label"),
            )
            for n, y in zip(names, heights, strict=True)
        ]
    )


def _below(names: Sequence[Name], box: Box, width: float) -> Markup:
    by_arm = {name.arm: name for name in names}
    drawn: list[Markup] = []
    for row, arms in enumerate(_rows(sorted(by_arm), width)):
        y = box.bottom + 50 + row * _ROW_PX
        for arm, x in arms:
            drawn.append(mark(by_arm[arm].shape, x + 6, y, 4.6, f"mark {by_arm[arm].colour}"))
            shown = fit(arm, width - x - _MARK_PX)
            drawn.append(text(x + _MARK_PX, y + 4, shown, class_="label"))
    return join(drawn)


def _rows(arms: Sequence[str], width: float) -> list[list[tuple[str, float]]]:
    rows: list[list[tuple[str, float]]] = []
    x = width
    for arm in arms:
        taken = text_width(arm) + _MARK_PX + 15
        if x + taken > width:
            rows.append([])
            x = 0.0
        rows[-1].append((arm, x))
        x += taken
    return rows
