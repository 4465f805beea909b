"""Markup cannot be broken by what it quotes."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twofold.report.markup import Markup, escape, join, number, tag


@given(st.text())
def test_any_text_survives_as_text_and_as_attribute(text: str) -> None:
    element = ET.fromstring(tag("p", text, title=text))
    # XML itself folds line ends, and blanks inside attributes.
    shown = text.replace("\r\n", "\n").replace("\r", "\n")
    kept = [a == b or b == "\ufffd" for a, b in zip(shown, element.text or "", strict=True)]
    assert all(kept)
    assert len(element) == 0
    assert set(element.attrib) == {"title"}


def test_a_lone_surrogate_does_not_stop_the_page_from_being_encoded() -> None:
    assert escape("a\ud800b\x00").encode() == "a\ufffdb\ufffd".encode()


def test_only_markup_passes_unescaped() -> None:
    assert tag("p", "<b>", Markup("<i></i>"), ["x", None]) == "<p>&lt;b&gt;<i></i>x</p>"
    assert join("&", None, [Markup("&amp;")]) == "&amp;&amp;"


def test_attribute_names_and_missing_attributes() -> None:
    assert tag("line", x1=1.25, class_="a", stroke_width=None) == '<line x1="1.2" class="a"/>'
    with pytest.raises(AssertionError):
        tag("line", "text")


@pytest.mark.parametrize(("value", "shown"), [(1.0, "1"), (1.26, "1.3"), (-0.04, "-0"), (10, "10")])
def test_coordinates_are_short(value: float, shown: str) -> None:
    assert number(value) == shown
