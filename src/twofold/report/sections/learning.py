"""Loss against wall time, for all arms and seeds."""

from __future__ import annotations

import math

from twofold.evidence.records import Evidence, Sample
from twofold.report import reading, wording
from twofold.report.blocks import Section, absent, figure, folded, heading, paragraph, table
from twofold.report.figures.curves import Crossing, Curve, End, curve_chart, end_chart
from twofold.report.markup import Markup, join
from twofold.report.palette import Look

_MOST_POINTS = 6_000
"""Points of all curves together: what keeps the page well under its megabyte."""
_MOST_RUNS = 200


def render(evidence: Evidence, look: Look) -> Section:
    runs = [s for s in evidence.samples if s.role == "run"]
    body = [
        heading("Training loss"),
        _curves(runs, look),
        heading("Held-out loss at the end of each run"),
        _ends(evidence, runs, look),
        _crossings(evidence),
    ]
    return Section(anchor="learning", title="Loss against wall time", body=join(body))


def _curves(runs: list[Sample], look: Look) -> Markup:
    whole = [c for s in runs if (c := _curve(s, look)) is not None]
    if not whole:
        return absent("No run reported its loss along the way, so there are no curves.")
    drawn: list[Curve] = reading.evenly(whole, _MOST_RUNS)
    most = max(8, min(80, _MOST_POINTS // len(drawn)))
    curves = [
        Curve(
            arm=c.arm,
            colour=c.colour,
            shape=c.shape,
            points=tuple(reading.evenly(c.points, most)),
            tip=c.tip,
        )
        for c in drawn
    ]
    return figure(
        lambda width: curve_chart(curves, width=width),
        "One thin line a run: every arm, seed and length. A shorter run decays its learning rate "
        "sooner, so the lines of one arm differ. The first steps lie above the frame.",
        _left_out(len(drawn), len(whole)),
    )


def _curve(sample: Sample, look: Look) -> Curve | None:
    points = tuple(
        (time_s, loss)
        for _, time_s, loss in sample.curve
        if time_s > 0 and math.isfinite(time_s) and math.isfinite(loss)
    )
    if len(points) < 2:
        return None
    return Curve(
        arm=sample.arm,
        colour=look.colour(sample.arm),
        shape=look.shape(sample.arm),
        points=points,
        tip=f"{sample.arm}, seed {sample.seed}, {wording.count(sample.tokens, 'tokens')}",
    )


def _ends(evidence: Evidence, runs: list[Sample], look: Look) -> Markup:
    finished = [
        s for s in runs if s.test_loss is not None and math.isfinite(s.test_loss) and s.train_s > 0
    ]
    if not finished:
        return absent("No run reported a held-out loss, so equal quality cannot be shown.")
    ends = [_end(s, look) for s in reading.evenly(finished, _MOST_RUNS)]
    crossings = [
        Crossing(
            colour=look.colour(arm.name),
            time_s=row["train_s"],
            tip=f"{arm.name}, seed {row.get('seed')}: meets the target after "
            f"{wording.seconds(row['train_s'])}",
        )
        for arm in evidence.arms
        for row in reading.crossings_of(evidence, arm.name)
    ]
    return figure(
        lambda width: end_chart(ends, crossings, evidence.target_loss, width=width),
        "Each mark is a run whose schedule is complete; filled where the claim is read. ",
        "Ticks on the target line are crossings interpolated between complete runs, never read "
        "off a curve."
        if crossings
        else _target_words(evidence),
        _left_out(len(ends), len(finished)),
    )


def _left_out(num_drawn: int, num: int) -> str | None:
    return f" {num_drawn} of {num} runs are drawn." if num_drawn < num else None


def _end(sample: Sample, look: Look) -> End:
    assert sample.test_loss is not None
    return End(
        arm=sample.arm,
        colour=look.colour(sample.arm),
        shape=look.shape(sample.arm),
        time_s=sample.train_s,
        loss=sample.test_loss,
        claimed=sample.fixed,
        tip=f"{sample.arm}, seed {sample.seed}, {wording.count(sample.tokens, 'tokens')}: "
        f"{wording.nats(sample.test_loss)} after {wording.seconds(sample.train_s)}",
    )


def _target_words(evidence: Evidence) -> str:
    if evidence.target_loss is None:
        return "The experiment has no target loss."
    return "No crossing of the target is known."


def _crossings(evidence: Evidence) -> Markup:
    if evidence.target_loss is None:
        return paragraph("The experiment has no target loss, so there is no time to a target.")
    words = paragraph(
        f"Target {wording.nats(evidence.target_loss)} per token: {evidence.target_origin}."
    )
    rows = [] if evidence.derived is None else evidence.derived.crossings
    if not rows:
        return join(words, absent("No time to the target was derived."))
    return join(
        words,
        folded(
            "Time to the target, by arm and seed",
            table(
                ["arm", "seed", "block", "time", "tokens", "bounds", "note"],
                [
                    [
                        wording.clip(str(row.get("arm"))),
                        str(row.get("seed")),
                        str(row.get("block")),
                        _seconds(row.get("train_s")),
                        "not known" if row.get("tokens") is None else wording.count(row["tokens"]),
                        _between(row.get("low_s"), row.get("high_s")),
                        str(row.get("note") or ""),
                    ]
                    for row in rows
                ],
                name="Time to the target loss",
                words={6},
            ),
        ),
    )


def _between(low_s: float | None, high_s: float | None) -> str:
    """The bounds of a crossing, where they say more than the crossing itself."""
    if low_s is not None and low_s == high_s:
        return "exact"
    if low_s is None and high_s is None:
        return "unknown"
    if high_s is None:
        return f"at least {_seconds(low_s)}"
    if low_s is None:
        return f"at most {_seconds(high_s)}"
    return f"{_seconds(low_s)} to {_seconds(high_s)}"


def _seconds(value: float | None) -> str:
    return "not known" if value is None else wording.seconds(value)
