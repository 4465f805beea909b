"""Latency: distributions near the goodput, latency against load, and a few requests in time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twofold.evidence.serving.answers import Answer
from twofold.evidence.serving.records import ServingArm, ServingEvidence
from twofold.evidence.serving.tails import percentile
from twofold.report import wording
from twofold.report.blocks import Section, absent, figure, heading, table
from twofold.report.figures.series import Axis, Limit, Series, series_chart
from twofold.report.figures.timeline import Told, timeline_chart
from twofold.report.markup import Child, Markup, join
from twofold.report.palette import Look
from twofold.report.serving.reading import (
    answers_at,
    at_rate,
    attained,
    claimed_targets,
    main_arms,
    mean_goodput,
    rate_nearest,
)

Quantity = Callable[[Answer], float | None]
_STEPS = 60
_SHOWN = 7


def render_distributions(evidence: ServingEvidence, look: Look) -> Section:
    """Each arm at that of its rates which is nearest to its goodput."""
    limits = claimed_targets(evidence).targets
    body: list[Markup] = []
    for name, words, read, limit_s in (
        ("TTFT", "time to first token", lambda a: a.ttft_s, limits.ttft_s),
        ("TPOT", "time per output token", lambda a: a.tpot_s, limits.tpot_s),
    ):
        series = [_distribution(evidence, arm, look, read) for arm in main_arms(evidence)]
        drawn = [s for s in series if s is not None]
        if not drawn:
            body.append(absent(f"No {name} was measured."))
            continue
        body += [heading(f"{name}: {words}"), _distributions(name, drawn, limit_s)]
    return Section(anchor="latency", title="How long requests wait", body=join(body))


def _distributions(name: str, series: Sequence[Series], limit_s: float | None) -> Markup:
    return figure(
        lambda width: series_chart(
            series,
            Axis(name=f"{name}, log scale", form=wording.seconds, log=True),
            Axis(name="share of requests at most so long", form=_percent, low=0.0, high=1.02),
            width=width,
            label=f"Cumulative distribution of {name} with the target",
            limits=[Limit(value=limit_s, name="target", vertical=True)] if limit_s else [],
        ),
        "Every judged request of all blocks, each arm at that of its rates which is nearest to "
        "its own goodput: the arms are under different loads here.",
    )


def _distribution(
    evidence: ServingEvidence, arm: ServingArm, look: Look, read: Quantity
) -> Series | None:
    rate = rate_nearest(arm, mean_goodput(evidence, arm.name, evidence.claimed))
    read_values = [read(a) for a in answers_at(evidence, arm.name, rate)]
    values = sorted(v for v in read_values if v is not None and v > 0)
    if len(values) < 2:
        return None
    shares = [i / _STEPS for i in range(_STEPS + 1)]
    return Series(
        arm=f"{arm.name}, {wording.digits(rate)}/s",
        colour=look.colour(arm.name),
        shape=look.shape(arm.name),
        points=tuple((percentile(values, share), share) for share in shares),
    )


def render_load(evidence: ServingEvidence, look: Look) -> Section:
    named = claimed_targets(evidence)
    limits = named.targets
    body: list[Markup] = []
    for name, read, limit_s in (
        ("TTFT", lambda a: a.ttft_s, limits.ttft_s),
        ("TPOT", lambda a: a.tpot_s, limits.tpot_s),
    ):
        series = [
            s
            for arm in main_arms(evidence)
            if (s := _against_load(evidence, arm, look, read, limits.attainment)) is not None
        ]
        if series:
            body += [heading(f"{name} against load"), _against(name, series, limit_s, evidence)]
    body.append(_rates(evidence))
    return Section(anchor="load", title="Latency against load, and the knee", body=join(body))


def _against(
    name: str, series: Sequence[Series], limit_s: float | None, evidence: ServingEvidence
) -> Markup:
    share = wording.percent(claimed_targets(evidence).targets.attainment)
    ceiling = max(y for s in series for _, y in s.points)
    floor = min(y for s in series for _, y in s.points)
    limit = limit_s or floor
    most = 1.3 * max(limit, min(ceiling, 9 * max(floor, limit)))
    return figure(
        lambda width: series_chart(
            series,
            Axis(name="requests/s sent, log scale", form=wording.short, log=True),
            Axis(name=f"{name} of {share} of requests", form=wording.seconds, log=True, high=most),
            width=width,
            label=f"{name} at that share of requests against the rate of requests",
            limits=[Limit(value=limit_s, name="target")] if limit_s else [],
        ),
        f"{share} of the requests of all blocks were at most so slow. Where a line turns upwards "
        "requests come faster than they are answered: the knee.",
    )


def _against_load(
    evidence: ServingEvidence, arm: ServingArm, look: Look, read: Quantity, share: float
) -> Series | None:
    points, tips = [], []
    for rate in arm.rates_per_s:
        values = [v for a in answers_at(evidence, arm.name, rate) if (v := read(a)) is not None]
        if values:
            value_s = percentile(values, share)
            points.append((rate, value_s))
            tips.append(
                f"{arm.name} at {wording.digits(rate)} requests/s: {wording.seconds(value_s)}"
            )
    if len(points) < 2:
        return None
    return Series(
        arm=arm.name,
        colour=look.colour(arm.name),
        shape=look.shape(arm.name),
        points=tuple(points),
        tips=tuple(tips),
    )


def _rates(evidence: ServingEvidence) -> Markup:
    rows: list[list[Child]] = []
    for arm in evidence.arms:
        for rate in arm.rates_per_s:
            answers = answers_at(evidence, arm.name, rate)
            if not answers:
                continue
            ttfts = [a.ttft_s or 0.0 for a in answers]
            tpots = [a.tpot_s for a in answers if a.tpot_s is not None]
            rows.append(
                [
                    f"{arm.name}, {wording.digits(rate)}/s",
                    str(len(answers)),
                    *(wording.seconds(percentile(ttfts, q)) for q in (0.5, 0.9, 0.99)),
                    *(wording.seconds(percentile(tpots, q)) for q in (0.5, 0.9, 0.99)),
                    *(
                        wording.percent(attained(evidence, arm.name, rate, t.targets))
                        for t in evidence.targets
                    ),
                ]
            )
    head = ["arm and rate", "n", "TTFT p50", "p90", "p99", "TPOT p50", "p90", "p99"]
    return table(
        [*head, *(f"met {t.name}" for t in evidence.targets)],
        rows,
        name="Every arm at every rate, all blocks together",
    )


def render_timeline(evidence: ServingEvidence, look: Look) -> Section:
    groups = [
        (f"{arm.name} at {wording.digits(rate)} requests/s", told)
        for arm in main_arms(evidence)
        for rate in [rate_nearest(arm, mean_goodput(evidence, arm.name, evidence.claimed))]
        if (told := _told(evidence, arm, rate, look))
    ]
    if not groups:
        body = absent("No requests to show.")
    else:
        body = figure(
            lambda width: timeline_chart(
                groups, width=width, label="A few requests of each arm in time"
            ),
            "Consecutive requests of the first block. The thin line is the wait for the first "
            "token, from the intended time; ticks are tokens; ✗ missed the claimed target. The "
            "number is the time to first token.",
        )
    return Section(anchor="timeline", title="A few requests, token by token", body=body)


def _told(evidence: ServingEvidence, arm: ServingArm, rate: float, look: Look) -> list[Told]:
    stretches = at_rate(evidence, arm.name, rate)
    if not stretches:
        return []
    judged = stretches[0].judged
    middle = max(0, (len(judged) - _SHOWN) // 2)
    shown = [a for a in judged[middle : middle + _SHOWN] if a.whole and a.chunks_s]
    if not shown:
        return []
    start_s = min(a.intended_s for a in shown)
    targets = claimed_targets(evidence).targets
    return [
        Told(
            label=f"{a.input_tokens} in, {a.output_tokens} out",
            intended_s=a.intended_s - start_s,
            chunks_s=tuple(t - start_s for t in a.chunks_s),
            met=a.meets(targets),
            colour=look.colour(arm.name),
            tip=f"TTFT {wording.seconds(a.ttft_s or 0)}, TPOT "
            f"{wording.seconds(a.tpot_s or 0)}, whole answer {wording.seconds(a.e2e_s)}",
        )
        for a in shown
    ]


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
