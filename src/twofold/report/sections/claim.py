"""The claims: each result by itself, in words, with interval and absolute times."""

from __future__ import annotations

from twofold.evidence.records import Arm, Evidence, Ratio, Result
from twofold.report import reading, wording
from twofold.report.blocks import (
    Section,
    absent,
    arm_name,
    code,
    figure,
    heading,
    paragraph,
    table,
)
from twofold.report.figures.intervals import Interval, Reference, interval_chart
from twofold.report.markup import Child, Markup, join, tag
from twofold.report.palette import Look

_KINDS = {
    "same maths": ("Same maths", "the identical algorithm, run faster", "faster"),
    "same loss": ("Same loss", "wall-clock time to an equal held-out loss", "sooner"),
}
_SIGNS = {"proven": "✓ Proven", "not proven": "✗ Not proven", "no verdict": "? No verdict"}


def render(evidence: Evidence, look: Look) -> Section:
    results = reading.results_of(evidence)
    body: list[Markup] = []
    for kind, (title, meaning, _) in _KINDS.items():
        cards = [_card(evidence, r, look) for r in results if r.kind == kind]
        if cards:
            body.append(tag("h3", title, tag("span", meaning, class_="aside")))
            body.append(tag("div", cards, class_="cards"))
    if not results:
        body.append(_no_result(evidence))
    else:
        body.append(_intervals(evidence, results, look))
    body.append(_arms(evidence, look))
    return Section(anchor="claim", title="The claim", body=join(body))


def _no_result(evidence: Evidence) -> Markup:
    if evidence.derived is None:
        return absent(
            "Nothing has been derived from the samples yet, so there is no claim to show."
        )
    return absent("No comparison was made, so there is no claim.")


def _card(evidence: Evidence, result: Result, look: Look) -> Markup:
    ratio = result.fixed
    state = result.verdict.replace(" ", "-")
    claimed = result.verdict == "proven" and not evidence.smoke
    return tag(
        "article",
        paragraph(
            arm_name(result.arm, look.colour(result.arm), look.shape(result.arm)),
            " against ",
            arm_name(result.baseline, look.colour(result.baseline), look.shape(result.baseline)),
            class_="over",
        ),
        paragraph(_SIGNS[result.verdict], class_=f"verdict {state}"),
        _headline(result, claimed=claimed),
        paragraph("smoke test, not evidence", class_="smoke-mark") if evidence.smoke else None,
        paragraph(wording.gain(ratio)) if claimed and ratio is not None else None,
        paragraph(wording.sentence(result.reason), class_="reason" if claimed else None),
        _times(evidence, result),
        paragraph(_predicted(result), class_="reason"),
        [paragraph(wording.sentence(note), class_="reason") for note in result.notes],
        class_=f"card {state}",
    )


def _headline(result: Result, *, claimed: bool) -> Markup:
    """The ratio as it was measured; where it proves nothing, that stands beside the number."""
    ratio = result.fixed
    if ratio is None:
        return paragraph("no ratio", class_="big open")
    words = _KINDS[result.kind][2] if ratio.value >= 1 else "as fast"
    return join(
        paragraph(
            wording.times(ratio.value),
            tag("span", f" {words}", class_="unit"),
            class_="big" if claimed else "big open",
        ),
        paragraph(_measured(ratio, claimed=claimed), class_="interval"),
    )


def _measured(ratio: Ratio, *, claimed: bool) -> str:
    standing = "measured" if claimed else "measured, not claimed"
    return f"{standing}; {wording.interval(ratio)}; {wording.pairs(ratio)}"


def _times(evidence: Evidence, result: Result) -> Markup:
    each = " per token" if result.kind == "same maths" else ""
    trained_s = _clock_s(evidence, result, startup=False)
    started_s = _clock_s(evidence, result, startup=True)
    rows: list[list[Child]] = [
        _timed(_claimed(evidence, result), result.fixed, trained_s),
        _timed("with start-up", result.fixed_with_startup, started_s),
    ]
    if result.kind == "same loss":
        target_s = _target_s(evidence, result)
        rows.append(_timed("to the target loss", result.to_target, target_s))
    return table(
        ["time", wording.clip(result.baseline), wording.clip(result.arm), "ratio"],
        rows,
        name=f"Times{each}, geometric means",
        class_="times",
    )


def _claimed(evidence: Evidence, result: Result) -> str:
    """What the headline's clock runs over."""
    trained = reading.claimed_clock(evidence, result) is reading.training_clock
    return "training" if trained else "whole run"


def _timed(name: str, ratio: Ratio | None, times_s: tuple[float, float] | None) -> list[Child]:
    shown = ["not known", "not known"] if times_s is None else [wording.seconds(t) for t in times_s]
    if ratio is None:
        return [name, *shown, "none"]
    return [name, *shown, join(wording.times(ratio.value), tag("small", wording.bounds(ratio)))]


def _clock_s(evidence: Evidence, result: Result, *, startup: bool) -> tuple[float, float] | None:
    ratio = result.fixed_with_startup if startup else result.fixed
    if ratio is None:
        return None
    clock = reading.whole_clock if startup else reading.claimed_clock(evidence, result)
    if result.kind == "same maths":
        return reading.paired_times_s(evidence, result, ratio, reading.per_token(clock))
    return reading.paired_times_s(evidence, result, ratio, clock)


def _target_s(evidence: Evidence, result: Result) -> tuple[float, float] | None:
    baseline_s, arm_s = (
        reading.geometric_mean(row["train_s"] for row in reading.crossings_of(evidence, arm))
        for arm in (result.baseline, result.arm)
    )
    return None if baseline_s is None or arm_s is None else (baseline_s, arm_s)


def _predicted(result: Result) -> str:
    if result.predicted is None:
        return "No ratio was predicted."
    words = f"Predicted beforehand: {wording.times(result.predicted)}"
    if result.fixed is None:
        return f"{words}."
    return f"{words}, error {wording.signed_percent(result.predicted / result.fixed.value - 1)}."


def _intervals(evidence: Evidence, results: list[Result], look: Look) -> Markup:
    rows: list[Interval] = []
    for result in results:
        rows.append(Interval(label=f"{result.kind}: {result.arm} against {result.baseline}"))
        for name, ratio in (
            (_claimed(evidence, result), result.fixed),
            ("with start-up", result.fixed_with_startup),
            ("to the target loss", result.to_target),
        ):
            if ratio is not None:
                rows.append(_interval(name, ratio, result, look))
    if all(row.value is None for row in rows):
        return absent("No ratio could be formed, so there is no interval to draw.")
    return figure(
        lambda width: interval_chart(
            rows,
            [
                Reference(value=1.0, name="1×, no gain", strong=True),
                Reference(value=2.0, name="2×"),
            ],
            lambda v: f"{wording.short(v)}×",
            width=width,
            axis="speed-up, log scale",
            label=f"Every ratio with its {wording.SURE} interval",
            describe="; ".join(row.tip for row in rows if row.tip),
            log=True,
        ),
        f"Every ratio with its {wording.SURE} interval, paired by block. Right of 1× is a gain; ",
        "the clock never includes tuning, whose bill is below.",
    )


def _interval(name: str, ratio: Ratio, result: Result, look: Look) -> Interval:
    return Interval(
        label=name,
        value=ratio.value,
        low=ratio.low,
        high=ratio.high,
        shown=f"{wording.times(ratio.value)} ({wording.bounds(ratio)})",
        tip=f"{result.arm} against {result.baseline}, {name}: "
        f"{wording.times(ratio.value)}, {wording.interval(ratio)}, {wording.pairs(ratio)}",
        colour=look.colour(result.arm),
        shape=look.shape(result.arm),
    )


def _arms(evidence: Evidence, look: Look) -> Markup:
    if not evidence.arms:
        return absent("The experiment has no arms.")
    return join(
        heading("Who was compared"),
        table(
            ["arm", "what it is", "maths", "recipe", "parameters", "tokens", "how it runs"],
            [_arm(arm, look) for arm in evidence.arms],
            name="The arms, with the tokens of the length the claim is read at",
            words={1, 2, 3, 6},
        ),
    )


def _arm(arm: Arm, look: Look) -> list[Child]:
    known = 0 <= arm.fixed_length < len(arm.lengths_tokens)
    how = reading.levers(arm)
    return [
        arm_name(arm.name, look.colour(arm.name), look.shape(arm.name)),
        arm.title,
        arm.maths,
        arm.recipe,
        "not known" if arm.num_parameters is None else wording.count(arm.num_parameters),
        wording.count(arm.lengths_tokens[arm.fixed_length]) if known else "not known",
        code(how) if arm.command is not None else how,
    ]
