"""Where the factor comes from: by cause, and by kind of work."""

from __future__ import annotations

import math

from twofold.evidence.records import Evidence, Factor, Result
from twofold.report import reading, wording
from twofold.report.blocks import Section, absent, figure, heading, paragraph, table
from twofold.report.figures.waterfall import Split, Step, Total, waterfall
from twofold.report.markup import Markup, join
from twofold.report.palette import Look

_NEGLIGIBLE = 0.005
"""Relative difference below which the parts are said to make the whole."""


def render(evidence: Evidence, look: Look) -> Section:
    results = reading.results_of(evidence)
    body = [_one(evidence, result, look) for result in results] or [
        absent("There is no result whose factor could be divided.")
    ]
    return Section(anchor="causes", title="Where the factor comes from", body=join(body))


def _one(evidence: Evidence, result: Result, look: Look) -> Markup:
    title = heading(f"{result.kind}: {_names(result)}")
    if result.fixed is None:
        return join(title, absent("No ratio was formed, so there is nothing to divide."))
    times_s = reading.paired_times_s(
        evidence, result, result.fixed, reading.claimed_clock(evidence, result)
    )
    splits = _splits(result, result.fixed.value)
    if times_s is None or not splits:
        return join(title, absent(_no_split(result)))
    if result.kind == "same maths" and not result.attribution:
        return join(title, paragraph(_all_faster(result, result.fixed.value)))
    baseline_s, arm_s = times_s
    start, end = (
        Total(label=arm, time_s=time_s, colour=look.colour(arm), shape=look.shape(arm))
        for arm, time_s in ((result.baseline, baseline_s), (result.arm, arm_s))
    )
    return join(
        title,
        figure(
            lambda width: waterfall(
                start,
                splits,
                end,
                width=width,
                label=f"From {result.baseline} to {result.arm}, factor by factor",
            ),
            _caption(result),
        ),
        _by_order(result),
        None if result.attribution else absent(_no_attribution(result)),
    )


def _splits(result: Result, total: float) -> list[Split]:
    splits = []
    if result.attribution:
        steps = [_cause(factor) for factor in result.attribution]
        splits.append(_complete("By cause", steps, total))
    if result.work_removed is not None and result.work_faster is not None:
        steps = [
            Step(label="work removed (fewer tokens)", factor=result.work_removed),
            Step(label="work done faster (tokens/s)", factor=result.work_faster),
        ]
        splits.append(_complete("By kind of work", steps, total))
    return splits


def _cause(factor: Factor) -> Step:
    return Step(
        label=factor.name,
        factor=factor.value,
        low=factor.low,
        high=factor.high,
        first_in=factor.first_in,
        last_in=factor.last_in,
    )


def _complete(title: str, steps: list[Step], total: float) -> Split:
    """A residual is shown, never spread over the causes."""
    rest = total / math.prod(step.factor for step in steps)
    if abs(rest - 1) > _NEGLIGIBLE:
        steps = [*steps, Step(label="unexplained", factor=rest)]
    return Split(title=title, steps=tuple(steps))


def _caption(result: Result) -> str:
    words = ["Equal factors are equally long on the log axis."]
    if result.attribution:
        words.append(
            "By cause: Shapley's share of each, measured by running every combination; the "
            f"whisker is its {wording.SURE} interval, the bracket below spans first-in to last-in."
        )
    return " ".join(words)


def _by_order(result: Result) -> Markup | None:
    if not result.attribution:
        return None
    return join(
        table(
            ["cause", "share", f"{wording.SURE} interval", "first in", "last in"],
            [
                [
                    f.name,
                    wording.times(f.value),
                    "none" if f.low is None or f.high is None else wording.span(f.low, f.high),
                    wording.times(f.first_in),
                    wording.times(f.last_in),
                ]
                for f in result.attribution
            ],
            name="Each cause alone (first in), and added to all the others (last in)",
        ),
        paragraph(_interaction(result.interaction)),
    )


def _interaction(value: float | None) -> str:
    if value is None:
        return "The interaction of the causes was not measured."
    factor = math.exp(value)
    if abs(factor - 1) < _NEGLIGIBLE:
        return f"Interaction {wording.times(factor)}: the causes act independently."
    effect = "help" if factor > 1 else "hinder"
    return (
        f"Interaction {wording.times(factor)}: together the causes {effect} each other; the whole "
        f"is {wording.times(factor)} the product of the causes alone."
    )


def _all_faster(result: Result, factor: float) -> str:
    return (
        f"The algorithm is the same, so no work is removed: the whole {wording.times(factor)} is "
        f"work done faster, tokens per second of the arm over those of the baseline."
    )


def _no_split(result: Result) -> str:
    return (
        f"The factor of {_names(result)} was not divided: neither an "
        "attribution nor a split of its work is known."
    )


def _no_attribution(result: Result) -> str:
    return (
        f"No attribution to causes was measured for {_names(result)}: that "
        "takes runs of every combination of maths and recipe between the two."
    )


def _names(result: Result) -> str:
    return f"{wording.clip(result.arm)} against {wording.clip(result.baseline)}"
