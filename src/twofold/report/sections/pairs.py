"""Paired ratios in run order, beside what the same arm shows against itself."""

from __future__ import annotations

from twofold.evidence.records import Evidence, NoiseFloor, Ratio, Result
from twofold.report import reading, wording
from twofold.report.blocks import Section, absent, figure, paragraph
from twofold.report.figures.pairs import Series, pair_chart
from twofold.report.markup import Markup, join
from twofold.report.palette import Look

_MOST_PAIRS = 100


def render(evidence: Evidence, look: Look) -> Section:
    floor = None if evidence.derived is None else evidence.derived.noise_floor
    series = [
        _series(r.kind, f"{r.arm} / {r.baseline}", r.fixed, look, r)
        for r in reading.results_of(evidence)
        if r.fixed is not None and r.fixed.pairs
    ]
    if floor is not None and floor.ratio.pairs:
        series.append(_series("A/A", "same arm, noise floor", floor.ratio, look, None))
    if not series:
        body: Markup = absent("No pairs were formed.")
    else:
        body = figure(
            lambda width: pair_chart(series, width=width),
            "One mark a pair; line and band are the geometric mean and its "
            f"{wording.SURE} interval. All "
            "panels share one log axis. A trend along a panel would be drift.",
        )
    return Section(
        anchor="pairs", title="Paired ratios in run order", body=join(body, _floor(floor))
    )


def _series(title: str, subtitle: str, ratio: Ratio, look: Look, result: Result | None) -> Series:
    arm = None if result is None else result.arm
    pairs = reading.evenly(ratio.pairs, _MOST_PAIRS)
    return Series(
        title=title,
        subtitle=subtitle,
        pairs=tuple((f"block {block}", value) for block, value in pairs),
        mean=ratio.value,
        low=ratio.low,
        high=ratio.high,
        colour="plain" if arm is None else look.colour(arm),
        shape="circle" if arm is None else look.shape(arm),
    )


def _floor(floor: NoiseFloor | None) -> Markup:
    if floor is None:
        return absent(
            "No A/A pairs were run, so what this machine shows without any change is unknown."
        )
    covers = (
        "holds 1, as it should"
        if floor.covers_one
        else "does not hold 1: order or drift favours one place, and a gain must exceed it"
    )
    return paragraph(
        f"The same arm against itself gives {wording.times(floor.ratio.value)} "
        f"({wording.interval(floor.ratio)}, {wording.pairs(floor.ratio)}); the interval {covers}. "
        f"From its spread, {wording.plural(floor.pairs_needed, 'pair')} were asked for. "
        "The noise floor is never subtracted."
    )
