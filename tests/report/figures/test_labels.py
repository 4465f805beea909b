"""Labels fit their place and keep off one another."""

from __future__ import annotations

import re
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from twofold.report.figures.frame import Box
from twofold.report.figures.labels import fit, place_labels, spread, text_width


@given(st.text(max_size=60), st.floats(min_value=0, max_value=400))
def test_what_is_fitted_fits(content: str, width: float) -> None:
    shown = fit(content, width)
    assert text_width(shown) <= max(width, text_width("…"))
    assert shown == content or shown.endswith("…")


def test_wide_characters_count_double() -> None:
    assert text_width("性能") > 1.5 * text_width("ab")


@given(st.lists(st.floats(0, 300), min_size=1, max_size=10))
def test_spread_labels_keep_their_distance_and_their_order(positions: list[float]) -> None:
    placed = spread(positions, 17, 0, 300)
    in_order = [placed[i] for i in sorted(range(len(placed)), key=lambda i: positions[i])]
    assert all(b - a >= 17 - 1e-6 for a, b in pairwise(in_order))
    assert all(-1e-6 <= y <= 300 + 1e-6 for y in placed)


def test_labels_are_left_out_rather_than_laid_over_each_other() -> None:
    box = Box(left=0, top=0, right=120, bottom=40)
    spots = [(60.0, 20.0)] * 30
    drawn = place_labels(spots, [f"label {i}" for i in range(30)], box)
    assert 1 <= drawn.count("<text") < 30
    assert len(set(re.findall(r'x="[^"]*" y="[^"]*"', drawn))) == drawn.count("<text")
