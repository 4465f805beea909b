"""HTML and SVG as text that cannot be broken by what it quotes.

A plain `str` is always escaped; only `Markup`, which `tag` alone makes, passes unchanged.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable

Attribute = str | float | None
"""None leaves the attribute out."""

_SELF_CLOSING = frozenset(
    ("br", "circle", "hr", "line", "link", "meta", "path", "polygon", "polyline", "rect")
)
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class Markup(str):
    """Text that is already well-formed markup."""

    __slots__ = ()


Child = str | Iterable[str] | None


def escape(text: str) -> Markup:
    """Quotes included; characters that XML forbids (NUL, lone surrogates) become U+FFFD."""
    if isinstance(text, Markup):
        return text
    return Markup(html.escape(_NOT_XML.sub("\ufffd", text), quote=True))


def tag(name: str, /, *children: Child, **attributes: Attribute) -> Markup:
    """One element. `class_` is written `class`, and `stroke_width` is `stroke-width`."""
    head = name + "".join(
        f' {key.rstrip("_").replace("_", "-")}="{_value(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _SELF_CLOSING:
        assert not children, f"<{name}> takes no children"
        return Markup(f"<{head}/>")
    return Markup(f"<{head}>{join(*children)}</{name}>")


def join(*children: Child) -> Markup:
    """Children one after the other, plain strings escaped."""
    return Markup("".join(_flat(children)))


def trusted(text: str) -> Markup:
    """Text of our own files (style, script), which must not be escaped."""
    return Markup(text)


def _flat(children: Iterable[Child]) -> Iterable[str]:
    for child in children:
        if child is None:
            continue
        if isinstance(child, str):
            yield escape(child)
        else:
            yield from _flat(child)


def _value(value: str | float) -> str:
    return escape(value) if isinstance(value, str) else number(value)


def number(value: float) -> str:
    """A coordinate: one decimal is a tenth of a pixel, which no eye sees."""
    return f"{value:.1f}".removesuffix(".0")
