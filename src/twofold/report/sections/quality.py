"""Equal quality: held-out losses, and the test against the margin fixed beforehand."""

from __future__ import annotations

import math

from twofold.evidence.records import Arm, Evidence, Quality, Result
from twofold.report import reading, wording
from twofold.report.blocks import Section, absent, bullets, figure, heading
from twofold.report.figures.intervals import Interval, Reference, interval_chart
from twofold.report.figures.strip import Strip, strip_chart
from twofold.report.markup import Markup, join
from twofold.report.palette import Look


def render(evidence: Evidence, look: Look) -> Section:
    body = join(
        heading("Held-out loss where the claim is read"),
        _losses(evidence, look),
        heading("Difference against the margin"),
        _tests(evidence, look),
    )
    return Section(anchor="quality", title="Quality", body=body)


def _losses(evidence: Evidence, look: Look) -> Markup:
    strips = [s for arm in evidence.arms if (s := _strip(evidence, arm, look)) is not None]
    silent = [arm.name for arm in evidence.arms if arm.name not in {s.label for s in strips}]
    lack = absent(f"No held-out loss: {', '.join(silent)}.") if silent else None
    if not strips:
        return lack or absent("The experiment has no arms.")
    chart = figure(
        lambda width: strip_chart(
            strips,
            evidence.target_loss,
            width=width,
            axis="held-out loss, nats per token (lower is better)",
            label="Held-out loss of every arm and seed at the claimed length",
        ),
        "One mark a seed, the upright line is their mean. Text of the test part only, which no "
        "tuning has seen.",
    )
    return join(chart, lack)


def _strip(evidence: Evidence, arm: Arm, look: Look) -> Strip | None:
    dots = tuple(
        (f"{arm.name}, seed {s.seed}: {wording.nats(s.test_loss)}", s.test_loss)
        for s in reading.claimed_runs(evidence, arm.name)
        if s.test_loss is not None and math.isfinite(s.test_loss)
    )
    if not dots:
        return None
    return Strip(
        label=arm.name,
        colour=look.colour(arm.name),
        shape=look.shape(arm.name),
        dots=tuple(reading.evenly(dots, 40)),
    )


def _tests(evidence: Evidence, look: Look) -> Markup:
    results = reading.results_of(evidence)
    tested = [(r, r.quality) for r in results if r.quality is not None]
    untested = [f"{r.arm} against {r.baseline} ({r.kind})" for r in results if r.quality is None]
    lack = absent(f"Equal quality was not checked: {'; '.join(untested)}.") if untested else None
    if not tested:
        return lack or absent("There is no result whose quality could be checked.")
    chart = figure(
        lambda width: interval_chart(
            [_row(result, quality, look) for result, quality in tested],
            [
                Reference(value=0.0, name="equal"),
                Reference(value=evidence.margin, name="margin", strong=True),
            ],
            wording.short,
            width=width,
            axis="loss, arm − baseline, nats per token",
            label="Difference in held-out loss with its upper bound, against the margin",
        ),
        "The mark is the mean difference, paired by seed; the tick is its one-sided "
        f"{wording.SURE} upper "
        "bound, which must not pass the margin.",
    )
    return join(chart, bullets([_words(result, quality) for result, quality in tested]), lack)


def _row(result: Result, quality: Quality, look: Look) -> Interval:
    shown = wording.signed(quality.difference)
    if quality.upper is not None:
        shown += f", bound {wording.signed(quality.upper)}"
    return Interval(
        label=f"{result.arm} − {result.baseline}",
        value=quality.difference,
        high=quality.upper,
        shown=shown,
        tip=_words(result, quality),
        colour=look.colour(result.arm),
        shape=look.shape(result.arm),
    )


def _words(result: Result, quality: Quality) -> str:
    """For the same maths the loss must agree in both directions, for the same loss in one."""
    against = f"{result.arm} against {result.baseline} ({result.kind})"
    margin = f"margin {wording.nats(quality.margin)}"
    if quality.margin_time_fraction is not None:
        margin += (
            f", which the baseline would gain by training "
            f"{wording.percent(quality.margin_time_fraction)} longer"
        )
    answer = "passed" if quality.passed else "failed"
    return f"{against}: {answer}; {_bound(result, quality)}; {margin}."


def _bound(result: Result, quality: Quality) -> str:
    upper = quality.upper
    if upper is None:
        return "one seed gives no bound"
    if result.kind == "same maths":
        return f"apart by at most {wording.nats(upper)} ({wording.SURE})"
    if upper < 0:
        return f"better by at least {wording.nats(-upper)} ({wording.SURE})"
    return f"worse by at most {wording.nats(upper)} ({wording.SURE})"
