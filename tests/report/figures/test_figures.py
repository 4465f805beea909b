"""Figures put things where the numbers say."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest

from twofold.report import wording
from twofold.report.figures.curves import Curve, End, curve_chart, end_chart
from twofold.report.figures.frame import NARROW, WIDE
from twofold.report.figures.intervals import Interval, Reference, interval_chart
from twofold.report.figures.pairs import Series, pair_chart
from twofold.report.figures.roofline import ArmClasses, OperatorClass, roofline_chart
from twofold.report.figures.scatter import Panel, Point, scatter_chart
from twofold.report.figures.stack import Stack, stack_chart
from twofold.report.figures.waterfall import Split, Step, Total, waterfall

WIDTHS = pytest.mark.parametrize("width", [WIDE, NARROW])


def rects(svg: str, class_: str) -> list[tuple[float, float]]:
    """(left, right) of every rectangle of a class."""
    found = [r for r in ET.fromstring(svg).iter("rect") if class_ in r.attrib.get("class", "")]
    return [(float(r.attrib["x"]), float(r.attrib["x"]) + float(r.attrib["width"])) for r in found]


def texts(svg: str) -> list[str]:
    return [
        "".join(t.itertext()).replace(wording.SPACE, " ") for t in ET.fromstring(svg).iter("text")
    ]


def falls(*factors: float, width: float = WIDE, start_s: float = 40.0) -> str:
    end_s = start_s
    for factor in factors:
        end_s /= factor
    steps = tuple(Step(label=f"cause {i}", factor=f) for i, f in enumerate(factors))
    return waterfall(
        Total(label="before", time_s=start_s, colour="arm-0", shape="circle"),
        [Split(title="By cause", steps=steps)],
        Total(label="after", time_s=end_s, colour="arm-1", shape="circle"),
        width=width,
        label="from before to after",
    )


@WIDTHS
def test_a_waterfall_goes_from_the_one_time_to_the_other_without_a_gap(width: float) -> None:
    svg = falls(2.0, 1.5, width=width)
    first, second = rects(svg, "bar faster")
    before, after = (float(c.attrib["cx"]) for c in ET.fromstring(svg).iter("circle"))
    assert first[1] == pytest.approx(before, abs=0.2)
    assert second[1] == pytest.approx(first[0], abs=0.2)
    assert second[0] == pytest.approx(after, abs=0.2)
    assert "13.3 s" in texts(svg)


def test_equal_factors_are_equally_long_and_a_slowdown_goes_back() -> None:
    (a, b), (c, d), (e, f) = rects(falls(2.0, 0.5, 2.0), "bar")
    assert b - a == pytest.approx(d - c, abs=0.2) == pytest.approx(f - e, abs=0.2)
    svg = falls(2.0, 0.8)
    assert len(rects(svg, "slower")) == 1
    assert "0.800×" in texts(svg)


def test_the_range_by_order_and_the_interval_are_drawn() -> None:
    step = Step(label="maths", factor=1.5, low=1.4, high=1.6, first_in=1.7, last_in=1.3)
    total = Total(label="x", time_s=30.0, colour="arm-0", shape="circle")
    svg = waterfall(total, [Split(title="t", steps=(step,))], total, width=WIDE, label="l")
    assert svg.count('class="order"') == 3
    assert svg.count('class="error"') == 3
    assert "1.50× (1.40 to 1.60)" in texts(svg)
    assert "1.70× when it comes first, 1.30× when it comes last" in svg


@WIDTHS
def test_the_band_of_the_scatter_is_20_percent_of_the_predicted_value(width: float) -> None:
    points = tuple(
        Point(label=f"arm {v}", predicted=v, measured=v * 1.1, low=v * 0.8, high=v * 1.2,
              colour="arm-1", shape="circle", tip=f"tip {v}")
        for v in (10.0, 100.0)
    )  # fmt: skip
    panel = Panel(title="Step time", unit="ms", points=points, form=wording.short)
    tree = ET.fromstring(scatter_chart([panel], width=width, label="l"))
    band = next(p for p in tree.iter("polygon") if p.attrib["class"] == "band")
    diagonal = next(p for p in tree.iter("line") if p.attrib["class"] == "reference")
    left, bottom, right, top = (float(diagonal.attrib[k]) for k in ("x1", "y1", "x2", "y2"))
    corners = [tuple(map(float, p.split(","))) for p in band.attrib["points"].split()]
    assert all(
        left - 0.1 <= x <= right + 0.1 and top - 0.1 <= y <= bottom + 0.1 for x, y in corners
    )
    dots = list(tree.iter("circle"))
    decade = float(dots[1].attrib["cx"]) - float(dots[0].attrib["cx"])
    # A factor of 1.2 in height, at the slope the two axes share per decade.
    height = (bottom - top) / (right - left) * decade
    up = [c for c in corners if c not in (corners[2], corners[5])][:1][0]
    level = bottom - (up[0] - left) / (right - left) * (bottom - top)
    assert (level - up[1]) / height == pytest.approx(0.0792, abs=0.005)  # log10(1.2)


def test_coinciding_points_do_not_lay_their_names_over_each_other() -> None:
    points = tuple(
        Point(label=f"arm {i}", predicted=10.0, measured=10.0, low=None, high=None,
              colour="arm-1", shape="circle", tip="")
        for i in range(3)
    )  # fmt: skip
    panel = Panel(title="t", unit="s", points=points, form=wording.short)
    tree = ET.fromstring(scatter_chart([panel], width=NARROW, label="l"))
    places = [(t.attrib["x"], t.attrib["y"]) for t in tree.iter("text") if "arm" in (t.text or "")]
    assert len(places) == len(set(places)) == 3


@WIDTHS
def test_stacked_parts_add_up_and_the_measured_line_stands_in_place(width: float) -> None:
    stack = Stack(label="arm", parts=(("weights", 60.0), ("rest", 40.0)), measured=50.0)
    svg = stack_chart([stack], wording.size, 1.0, width=width, axis="B", label="l",
                      colours=lambda name: f"part-{name}")  # fmt: skip
    weights, rest = rects(svg, "bar")
    per_byte = (weights[1] + 1 - weights[0]) / 60.0
    assert (rest[1] + 1 - rest[0]) / 40.0 == pytest.approx(per_byte, rel=0.02)
    line = next(e for e in ET.fromstring(svg).iter("line") if e.attrib["class"] == "measured")
    assert float(line.attrib["x1"]) == pytest.approx(weights[0] + 50 * per_byte, abs=0.3)


def test_the_roof_bends_where_bandwidth_meets_the_rate() -> None:
    classes = tuple(
        OperatorClass(name=f"c{x}", intensity=x, flop_per_s=1e9 * x, time_fraction=0.5)
        for x in (1.0, 100.0)
    )
    arm = ArmClasses(label="arm", colour="arm-1", classes=classes)
    tree = ET.fromstring(roofline_chart([arm], {"fp32": 1e11}, 1e10, width=WIDE))
    roof = next(p for p in tree.iter("path") if p.attrib["class"] == "roof")
    xs = [float(x) for x in re.findall(r"[ML]([\d.]+) ", roof.attrib["d"])]
    dots = sorted(float(c.attrib["cx"]) for c in tree.iter("circle"))
    assert len(xs) == 3
    assert xs[1] == pytest.approx(sum(dots) / 2, abs=0.3)  # ridge 10, between 1 and 100


@WIDTHS
def test_every_arm_is_named_once_beside_its_curves(width: float) -> None:
    curves = [
        Curve(arm=arm, colour="arm-1", shape="circle", tip=f"{arm} {seed}",
              points=((1.0, 5.0), (5.0, 3.0 + seed), (10.0, 2.0)))
        for arm in ("naive", "twofold")
        for seed in range(3)
    ]  # fmt: skip
    svg = curve_chart(curves, width=width)
    assert [t for t in texts(svg) if t in ("naive", "twofold")].count("naive") == 1
    assert svg.count('class="curve') == 6


def test_the_claimed_ends_are_filled_and_the_target_is_drawn() -> None:
    ends = [
        End(arm="a", colour="arm-1", shape="circle", time_s=t, loss=3 - t / 10, claimed=t == 2,
            tip="t")
        for t in (1.0, 2.0, 4.0)
    ]  # fmt: skip
    svg = end_chart(ends, [], 2.7, width=WIDE)
    assert svg.count("hollow") == 2
    assert "target 2.70" in texts(svg)
    assert "target" not in " ".join(texts(end_chart(ends, [], None, width=WIDE)))


def test_a_one_sided_bound_has_one_tick() -> None:
    rows = [Interval(label="a − b", value=0.01, high=0.02, shown="+0.0100", tip="t")]
    svg = interval_chart(
        rows, [Reference(value=0.03, name="margin", strong=True)], wording.short, width=WIDE,
        axis="nats", label="l",
    )  # fmt: skip
    assert svg.count('class="whisker ') == 2  # the line and its upper end


@WIDTHS
def test_pairs_share_one_axis_and_one_pair_has_no_band(width: float) -> None:
    series = [
        Series(title=title, subtitle="", pairs=(("block 0", mean),), mean=mean, low=None,
               high=None, colour="arm-1", shape="circle")
        for title, mean in (("same loss", 4.0), ("A/A", 1.0))
    ]  # fmt: skip
    svg = pair_chart(series, width=width)
    assert "4.00×" in texts(svg)
    tree = ET.fromstring(svg)
    high, low = (float(c.attrib["cy"]) for c in tree.iter("circle"))
    ones = [e for e in tree.iter("line") if e.attrib["class"] == "reference strong"]
    assert low == pytest.approx(float(ones[1].attrib["y1"]), abs=0.2)
    assert high < float(ones[0].attrib["y1"])
