"""Columns of text, aligned, and narrower where there is little room."""

from __future__ import annotations

from collections.abc import Collection, Sequence

_GAP = "  "
Step = tuple[int, Sequence[str] | None]
"""A column and its cells in short, the head first; None: it goes."""


def aligned(rows: Sequence[Sequence[str]], *, left: Sequence[int] = (0,)) -> list[str]:
    """Lines of equal columns, two spaces apart; those in `left` begin, the others end, alike."""
    return fitted(rows, left=left)[0]


def fitted(
    rows: Sequence[Sequence[str]],
    *,
    left: Sequence[int] = (0,),
    width: int | None = None,
    steps: Sequence[Step] = (),
) -> tuple[list[str], tuple[str, ...]]:
    """The same in `width` characters, where the steps get that far, and the heads of the columns
    that went. Steps are taken in turn until the rest fits; no cell is ever cut."""
    columns = dict(enumerate(zip(*rows, strict=True)))
    gone = []
    for place, short in steps:
        if width is None or _width(columns.values()) <= width:
            break
        if short is None:
            gone.append(columns.pop(place)[0])
        else:
            columns[place] = tuple(short)
    lines = []
    for row in zip(*columns.values(), strict=True):
        cells = [
            cell.ljust(_cell(columns[place]))
            if place in left
            else cell.rjust(_cell(columns[place]))
            for place, cell in zip(columns, row, strict=True)
        ]
        lines.append(_GAP.join(cells).rstrip())
    return lines, tuple(gone)


def _cell(column: Sequence[str]) -> int:
    return max(map(len, column))


def _width(columns: Collection[Sequence[str]]) -> int:
    return sum(map(_cell, columns)) + len(_GAP) * (len(columns) - 1)
