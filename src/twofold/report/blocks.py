"""The few HTML blocks a page is made of."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from twofold.report import wording
from twofold.report.figures.frame import NARROW, WIDE, Shape, mark
from twofold.report.markup import Child, Markup, join, tag


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One numbered section; `anchor` is its id."""

    anchor: str
    title: str
    body: Markup


def paragraph(*children: Child, class_: str | None = None) -> Markup:
    return tag("p", *children, class_=class_)


def absent(sentence: str) -> Markup:
    """A plain sentence where a figure would be, saying why there is none."""
    return tag("p", sentence, class_="absent")


def heading(words: str) -> Markup:
    return tag("h3", words)


def bullets(items: Sequence[Child]) -> Markup:
    return tag("ul", [tag("li", item) for item in items])


def figure(draw: Callable[[float], Markup], *caption: Child) -> Markup:
    """The drawing for a page and for a phone; the style sheet shows the one that fits."""
    return tag(
        "figure",
        tag("div", draw(WIDE), class_="on-page"),
        tag("div", draw(NARROW), class_="on-phone"),
        tag("figcaption", *caption),
    )


def table(
    head: Sequence[Child],
    rows: Sequence[Sequence[Child]],
    *,
    name: str,
    words: Collection[int] = (),
    class_: str | None = None,
) -> Markup:
    """The first column names the row; others are numbers, except the columns in `words`.

    A table wider than its place scrolls within it and never widens the page.
    """
    body = tag(
        "table",
        tag("caption", tag("span", name)),
        tag("thead", tag("tr", [_cell("th", c, i, words, "col") for i, c in enumerate(head)])),
        tag("tbody", [tag("tr", [_body_cell(c, i, words) for i, c in enumerate(r)]) for r in rows]),
        class_=class_,
    )
    return tag("div", body, class_="scroll", tabindex="0", role="region", aria_label=name)


def folded(summary: str, *children: Child) -> Markup:
    return tag("details", tag("summary", summary), *children)


def swatch(colour: str, shape: Shape) -> Markup:
    """An arm's mark, in a line of text; the name beside it says which arm."""
    drawing = mark(shape, 7, 7, 4.8, f"mark {colour}")
    return tag("svg", drawing, viewBox="0 0 14 14", class_="swatch", aria_hidden="true")


def code(words: str) -> Markup:
    return tag("code", words)


def arm_name(name: str, colour: str, shape: Shape) -> Markup:
    return tag("span", swatch(colour, shape), wording.clip(name), class_="arm")


def _body_cell(cell: Child, column: int, words: Collection[int]) -> Markup:
    if column == 0:
        return tag("th", tag("span", cell, class_="words"), scope="row")
    if column in words:
        return tag("td", tag("span", cell, class_="words"))
    return _cell("td", cell, column, words, None)


def _cell(kind: str, cell: Child, column: int, words: Collection[int], scope: str | None) -> Markup:
    numeric = column > 0 and column not in words
    return tag(kind, cell, scope=scope, class_="number" if numeric else None)


def listing(pairs: Sequence[tuple[str, Child]]) -> Markup:
    """Names with what they stand for."""
    return tag("dl", [join(tag("dt", name), tag("dd", value)) for name, value in pairs])
