"""The claims: goodput at the claimed target in cards, at all targets in a table."""

from __future__ import annotations

from twofold.evidence.serving.records import ServingEvidence, ServingResult
from twofold.report import wording
from twofold.report.blocks import Section, absent, arm_name, figure, paragraph, table
from twofold.report.figures.intervals import Interval, Reference, interval_chart
from twofold.report.markup import Child, Markup, join, tag
from twofold.report.palette import Look
from twofold.report.serving.reading import claimed_targets, main_arms

_SIGNS = {"proven": "✓ Proven", "not proven": "✗ Not proven", "no verdict": "? No verdict"}


def render(evidence: ServingEvidence, look: Look) -> Section:
    results = evidence.derived.results if evidence.derived else []
    claimed = [r for r in results if r.target == evidence.claimed]
    body = [
        tag(
            "h3", "Goodput within the target", tag("span", _target_words(evidence), class_="aside")
        ),
        tag("div", [_card(evidence, r, look) for r in claimed], class_="cards"),
        _intervals(results, look),
        _table(evidence),
        _arms(evidence, look),
    ]
    return Section(anchor="claim", title="The claim", body=join(body))


def _target_words(evidence: ServingEvidence) -> str:
    named = claimed_targets(evidence)
    limits = named.targets
    return (
        f"{wording.percent(limits.attainment)} of requests within TTFT "
        f"{wording.seconds(limits.ttft_s or 0)} and TPOT {wording.seconds(limits.tpot_s or 0)}, "
        f"{named.times_unloaded:g} times what {evidence.comparisons[0][1]} takes for one user alone"
    )


def _card(evidence: ServingEvidence, result: ServingResult, look: Look) -> Markup:
    state = result.verdict.replace(" ", "-")
    ratio, proven = result.ratio, result.verdict == "proven"
    big = "no ratio" if ratio is None else wording.times(ratio.value)
    return tag(
        "article",
        paragraph(
            arm_name(result.arm, look.colour(result.arm), look.shape(result.arm)),
            " against ",
            arm_name(result.baseline, look.colour(result.baseline), look.shape(result.baseline)),
            class_="over",
        ),
        paragraph(_SIGNS[result.verdict], class_=f"verdict {state}"),
        paragraph(
            "at least " if result.lower_bound and ratio is not None else "",
            big,
            tag("span", " the requests", class_="unit") if ratio is not None else None,
            class_="big" if proven else "big open",
        ),
        paragraph(f"measured; {wording.interval(ratio)}; {wording.pairs(ratio)}", class_="interval")
        if ratio is not None
        else None,
        paragraph("smoke test, not evidence", class_="smoke-mark") if evidence.smoke else None,
        paragraph(wording.gain(ratio)) if proven and ratio is not None else None,
        paragraph(wording.sentence(result.reason), class_="reason"),
        paragraph(_absolute(result), class_="reason"),
        class_=f"card {state}",
    )


def _absolute(result: ServingResult) -> str:
    if result.goodput_per_s is None or result.baseline_per_s is None:
        return "One of the two has no goodput at this target."
    words = (
        f"{wording.digits(result.goodput_per_s)} against "
        f"{wording.digits(result.baseline_per_s)} requests/s."
    )
    if result.predicted is None:
        return words
    return f"{words} Predicted beforehand: {wording.times(result.predicted)}."


def _intervals(results: list[ServingResult], look: Look) -> Markup:
    rows = [
        Interval(
            label=f"{r.target}: {r.arm} against {r.baseline}",
            value=r.ratio.value,
            low=r.ratio.low,
            high=r.ratio.high,
            shown=wording.times(r.ratio.value),
            tip=f"{r.target} target: {wording.times(r.ratio.value)}, {wording.bounds(r.ratio)}",
            colour=look.colour(r.baseline),
            shape=look.shape(r.baseline),
        )
        for r in results
        if r.ratio is not None
    ]
    if not rows:
        return absent("No ratio could be formed, so there is no interval to draw.")
    return figure(
        lambda width: interval_chart(
            rows,
            [
                Reference(value=1.0, name="no gain"),
                Reference(value=2.0, name="2×", strong=True),
            ],
            wording.short,
            width=width,
            axis="goodput ratio, log scale",
            label="Goodput ratios at every target with their intervals",
            log=True,
        ),
        f"Paired by block; whiskers are {wording.SURE} intervals. Marks wear the colour of the "
        "baseline.",
    )


def _table(evidence: ServingEvidence) -> Markup:
    rows: list[list[Child]] = []
    for named in evidence.targets:
        limits = named.targets
        for arm in main_arms(evidence):
            found = [
                r
                for r in (evidence.derived.goodputs if evidence.derived else [])
                if r.arm == arm.name and r.target == named.name
            ]
            cells = [
                f"under {wording.digits(r.high or 0)}" if r.value is None
                else f"over {wording.digits(r.value)}" if r.high is None
                else wording.digits(r.value)
                for r in found
            ]  # fmt: skip
            rows.append(
                [
                    f"{named.name}, {arm.name}",
                    wording.seconds(limits.ttft_s or 0),
                    wording.seconds(limits.tpot_s or 0),
                    ", ".join(cells),
                ]
            )
    return table(
        ["target and arm", "TTFT", "TPOT", "goodput by block, requests/s"],
        rows,
        name="Goodput: the rate at which "
        f"{wording.percent(claimed_targets(evidence).targets.attainment)} of requests still meet "
        "the target",
        words={3},
    )


def _arms(evidence: ServingEvidence, look: Look) -> Markup:
    rows: list[list[Child]] = [
        [arm_name(a.name, look.colour(a.name), look.shape(a.name)), a.title, _plan_words(a.plan)]
        for a in evidence.arms
    ]
    return table(["arm", "what it is", "plan"], rows, name="The arms", words={1, 2})


def _plan_words(document: dict[str, object] | None) -> str:
    if document is None:
        return "a URL"
    plan = document["plan"]
    assert isinstance(plan, dict)
    names = {
        "batching": "{} batching",
        "max_num_seqs": "{} sequences",
        "max_batched_tokens": "{} tokens a step",
        "chunked_prefill": "chunked prompts {}",
        "prefix_caching": "prefix cache {}",
        "precision": "{}",
        "threads": "{} threads",
    }
    words = {True: "on", False: "off"}
    return ", ".join(
        form.format(words.get(plan[name], plan[name]) if isinstance(plan[name], bool)
                    else plan[name])
        for name, form in names.items()
    )  # fmt: skip
