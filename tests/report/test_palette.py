"""Colours that can be read, and arms that keep theirs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.report import examples
from twofold.report.palette import NUM_ARM_COLOURS, TOKENS, css_variables, look_of


def luminance(colour: str) -> float:
    """Relative luminance, WCAG 2.1."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    r, g, b = (c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def contrast(a: str, b: str) -> float:
    lighter, darker = sorted((luminance(a), luminance(b)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def test_contrast_of_black_and_white_is_21() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize("name", ["ink", "muted", "accent", "good", "bad", "unsure"])
def test_text_has_the_contrast_wcag_asks_for(name: str, theme: int) -> None:
    for ground in ("paper", "raised"):
        assert contrast(TOKENS[name][theme], TOKENS[ground][theme]) >= 4.5


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_ink_is_read_on_every_coloured_ground(theme: int) -> None:
    grounds = [n for n in TOKENS if n.startswith(("part", "heat")) or n == "banner"]
    for name in grounds:
        assert contrast(TOKENS["ink"][theme], TOKENS[name][theme]) >= 4.5, name


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_marks_are_seen_on_the_paper(theme: int) -> None:
    for i in range(NUM_ARM_COLOURS):
        assert contrast(TOKENS[f"arm-{i}"][theme], TOKENS["paper"][theme]) >= 3, i


def test_the_naive_baseline_is_grey_and_the_claimed_arm_blue() -> None:
    look = look_of(examples.whole())
    assert look.colour("naive") == "arm-0"
    assert look.colour("twofold") == "arm-1"
    colours = [look.colour(name) for name in look.slots]
    assert len(set(colours)) == len(colours) == 5
    assert len({look.shape(name) for name in look.slots}) == 5


def test_more_arms_than_colours_still_differ_by_shape_or_colour() -> None:
    evidence = examples.whole()
    many = [replace(evidence.arms[0], name=f"arm {i}") for i in range(20)]
    look = look_of(replace(evidence, arms=many, comparisons=[]))
    assert len({(look.colour(a.name), look.shape(a.name)) for a in many}) == 20


def test_both_themes_define_every_colour() -> None:
    css = css_variables()
    for name, (light, dark) in TOKENS.items():
        assert css.count(f"--{name}:{light};") == 2  # the page, and print
        assert css.count(f"--{name}:{dark};") == 2  # by the system's choice, and the reader's
