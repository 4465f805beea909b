"""Lines over one pair of axes: the line of a target and its name."""

from __future__ import annotations

import re

import pytest

from twofold.report.figures.series import Axis, Limit, Series, series_chart

_LINE_PX = 12.0


def _heights(limit: float, high: float) -> dict[str, float]:
    """Where texts stand, by what they say."""
    chart = str(
        series_chart(
            [Series(arm="planned", colour="c0", shape="circle", points=((1.0, 0.1), (2.0, 0.2)))],
            Axis(name="requests/s", form=str),
            Axis(name="TTFT", form=str, high=high),
            width=600,
            label="a chart",
            limits=[Limit(value=limit, name="target")],
        )
    )
    texts = re.findall(r'<text[^>]*?\by="([-\d.]+)"[^>]*>([^<]*)</text>', chart)
    return {words: float(y) for y, words in texts}


@pytest.mark.parametrize("limit", [0.1, 0.25, 0.29, 0.3])
def test_the_name_of_a_target_is_clear_of_that_of_the_axis(limit: float) -> None:
    heights = _heights(limit, high=0.3)
    assert abs(heights["target"] - heights["TTFT"]) >= _LINE_PX
