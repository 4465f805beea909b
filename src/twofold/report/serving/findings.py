"""What else the proof found: Pareto, levers, predictions, quality, conditions, limits."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict

from twofold.document import content_hash
from twofold.evidence.serving.answers import Stretch
from twofold.evidence.serving.records import Compared, ServingEvidence
from twofold.evidence.serving.tails import percentile
from twofold.report import wording
from twofold.report.blocks import (
    Section,
    absent,
    bullets,
    code,
    figure,
    folded,
    listing,
    paragraph,
    table,
)
from twofold.report.figures.scatter import BAND, Panel, Point, scatter_chart
from twofold.report.figures.series import Axis, Series, series_chart
from twofold.report.figures.waterfall import Split, Step, Total, waterfall
from twofold.report.markup import Child, Markup, join, tag
from twofold.report.palette import Look
from twofold.report.serving.reading import main_arms

_LONGEST_EXPERIMENT = 20_000


def render_pareto(evidence: ServingEvidence, look: Look) -> Section:
    """Tokens/s a user sees against tokens/s the machine gives, each arm from light to full load."""
    series = []
    for arm in main_arms(evidence):
        points, tips = [], []
        for rate in (*arm.rates_per_s, None):
            stretches = [
                s
                for s in evidence.stretches
                if s.arm == arm.name
                and s.block >= 0
                and s.rate_per_s == rate
                and s.kind == ("offline" if rate is None else "rate")
            ]
            point = _tokens_per_s(stretches)
            if point is None:
                continue
            load = "all at once" if rate is None else f"{wording.digits(rate)} requests/s"
            points.append(point)
            tips.append(
                f"{load}: {wording.digits(point[0])} tokens/s a user, "
                f"{wording.digits(point[1])} in all"
            )
        if len(points) > 1:
            series.append(
                Series(
                    arm=arm.name,
                    colour=look.colour(arm.name),
                    shape=look.shape(arm.name),
                    points=tuple(points),
                    tips=tuple(tips),
                )
            )
    if not series:
        body = absent("Nothing was measured to compare.")
    else:
        body = figure(
            lambda width: series_chart(
                series,
                Axis(name="tokens/s a user sees (1 / TPOT), log scale",
                     form=wording.short, log=True),
                Axis(name="output tokens/s of this machine, log scale",
                     form=wording.short, log=True),
                width=width,
                label="Tokens per second of a user against those of the machine",
            ),
            "The median user at every rate, and with all requests at once (the last mark). Up and "
            "to the right is better; at the rates below the knee the machine gives what is asked.",
        )  # fmt: skip
    return Section(anchor="pareto", title="For one user, and for the machine", body=body)


def _tokens_per_s(stretches: Sequence[Stretch]) -> tuple[float, float] | None:
    answers = [a for s in stretches for a in s.judged if a.whole]
    tpots_s = [a.tpot_s for a in answers if a.tpot_s]
    if not tpots_s:
        return None
    spans_s = [
        max(a.end_s for a in s.judged) - min(a.intended_s for a in s.judged) for s in stretches
    ]
    tokens = sum(a.output_tokens for a in answers)
    return 1.0 / percentile(tpots_s, 0.5), tokens / sum(spans_s)


def render_causes(evidence: ServingEvidence, look: Look) -> Section:
    derived = evidence.derived
    factors = derived.attribution if derived else []
    names = {arm.levers: arm.name for arm in evidence.arms if arm.levers is not None}
    start = names.get(())
    end = names.get(tuple(sorted(evidence.levers)))
    if not factors or start is None or end is None:
        why = derived.attribution_note if derived else "nothing was derived"
        body = absent(f"The factor was not divided: {why}.")
        return Section(anchor="causes", title="Where the factor comes from", body=body)
    before, after = (_one_block(evidence, name) for name in (start, end))
    steps = [
        Step(label=f.name, factor=f.value, low=f.low, high=f.high,
             first_in=f.first_in, last_in=f.last_in)
        for f in factors
    ]  # fmt: skip
    rest = (before / after) / math.prod(f.value for f in factors) if before and after else 1.0
    if abs(rest - 1) > 0.005:
        steps.append(Step(label="unexplained", factor=rest))
    ends = [
        Total(label=name, time_s=time_s, colour=look.colour(name), shape=look.shape(name))
        for name, time_s in ((start, before), (end, after))
    ]
    assert derived is not None
    body = join(
        figure(
            lambda width: waterfall(
                ends[0],
                [Split(title="By lever", steps=tuple(steps))],
                ends[1],
                width=width,
                label=f"From {start} to {end}, lever by lever",
                axis="seconds between requests at the goodput, log scale",
            ),
            "Equal factors are equally long on the log axis. Shapley's share of each lever over "
            "the orders whose every state was measured; the bracket below spans the least and "
            "the most that it gave in any of them.",
        ),
        table(
            ["lever", "share", "least", "most"],
            [
                [f.name, wording.times(f.value), wording.times(f.first_in),
                 wording.times(f.last_in)]
                for f in factors
            ],
            name=wording.sentence(derived.attribution_note),
        ),
    )  # fmt: skip
    return Section(anchor="causes", title="Where the factor comes from", body=body)


def _one_block(evidence: ServingEvidence, arm: str) -> float:
    """Seconds between requests at the goodput of the first block, where all states were run."""
    rows = evidence.derived.goodputs if evidence.derived else []
    values = [
        r.value
        for r in rows
        if r.arm == arm and r.target == evidence.claimed and r.block == 0 and r.value
    ]
    return 1.0 / values[0] if values else 0.0


def render_predictions(evidence: ServingEvidence, look: Look) -> Section:
    rows = evidence.derived.compared if evidence.derived else []
    panels = []
    for quantity, unit, scale, form in (
        ("output tokens/s", "tokens/s", 1.0, wording.short),
        ("TPOT", "ms", 1e-3, wording.short),
        ("TTFT", "ms", 1e-3, wording.short),
        ("goodput", "requests/s", 1.0, wording.short),
    ):
        points = tuple(_point(row, look, scale, unit) for row in rows if row.quantity == quantity)
        if points:
            panels.append(Panel(title=quantity, unit=unit, points=points, form=form))
    if not panels:
        body: Markup = absent("Nothing was predicted: arms behind a URL have no known plan.")
    else:
        body = join(
            figure(
                lambda width: scatter_chart(
                    panels, width=width, label="Predicted against measured"
                ),
                f"The band is {100 * BAND:g} % to either side. Predictions were hashed before the "
                "first judged request.",
            ),
            _errors(rows),
        )
    return Section(anchor="predictions", title="Predicted against measured", body=body)


def _point(row: Compared, look: Look, scale: float, unit: str) -> Point:
    at = "all at once" if row.rate_per_s is None else f"{wording.digits(row.rate_per_s)}/s"
    return Point(
        label="",
        predicted=row.predicted / scale,
        measured=row.measured / scale,
        low=None,
        high=None,
        colour=look.colour(row.arm),
        shape=look.shape(row.arm),
        tip=f"{row.arm}, {row.quantity}, {at}: predicted {wording.digits(row.predicted / scale)}, "
        f"measured {wording.digits(row.measured / scale)} {unit}",
    )


def _errors(rows: Sequence[Compared]) -> Markup:
    cells: list[list[Child]] = [
        [
            f"{row.arm}, {row.quantity}",
            "" if row.rate_per_s is None else f"{wording.digits(row.rate_per_s)}/s",
            wording.digits(row.predicted),
            wording.digits(row.measured),
            wording.signed_percent(row.predicted / row.measured - 1),
        ]
        for row in rows
    ]
    return folded(
        "Every prediction beside its measurement",
        table(
            ["what", "at", "predicted", "measured", "error"],
            cells,
            name="Times in seconds; predicted over measured, less one",
        ),
    )


def render_quality(evidence: ServingEvidence, look: Look) -> Section:
    """`look` is not needed: nothing is drawn."""
    quality = evidence.derived.quality if evidence.derived else {}
    if not quality:
        body = absent("Quality was not compared.")
        return Section(anchor="quality", title="Equal answers", body=body)
    rows: list[list[Child]] = [
        [
            wording.clip(name),
            f"{q.num_equal} of {q.num_prompts}",
            str(q.num_near_ties),
            "none" if q.widest_gap is None else f"{q.widest_gap:.2g}",
            "not taken" if q.loss_difference is None else f"{q.loss_difference:+.2g} nats",
            "equal" if q.passed else "differs",
        ]
        for name, q in quality.items()
    ]
    body = join(
        paragraph(
            "Greedy answers are compared token for token while several requests share a batch. "
            "Where two first differ, the two most likely tokens must lie within "
            f"{evidence.epsilon:g} of each other in log probability: the order of additions, "
            "which changes with the shape of a batch, then decides between them."
        ),
        table(
            ["arm", "equal answers", "near ties", "widest gap", "held-out loss", "verdict"],
            rows,
            name="Each arm against the baseline of its first comparison",
            words={5},
        ),
        bullets([wording.sentence(q.reason) for q in quality.values()]),
    )
    return Section(anchor="quality", title="Equal answers", body=body)


def render_conditions(evidence: ServingEvidence, look: Look) -> Section:
    """`look` is not needed: nothing is drawn."""
    judged = [s for s in evidence.stretches if s.block >= 0]
    rows: list[list[Child]] = []
    for arm in evidence.arms:
        own = [s for s in judged if s.arm == arm.name]
        if not own:
            continue
        lags = [a.lag_s for s in own for a in s.judged]
        rows.append(
            [
                wording.clip(arm.name),
                _median([s.load_before for s in own]),
                _median([s.crowded_cores for s in own]),
                _median([s.steal_fraction for s in own]),
                wording.seconds(percentile(lags, 0.99)),
                str(sum(a.error is not None for s in own for a in s.answers)),
            ]
        )
    host = evidence.environment.get("host", {})
    body = join(
        table(
            ["arm", "load before", "others' cores", "steal", "sender late (p99)", "errors"],
            rows,
            name="Medians over the stretches of each arm. The servers of other arms stand idle "
            "beside the one that is measured; what they use counts as ours",
        ),
        listing(
            [
                ("processor", str(host.get("cpu", {}).get("model", "not known"))),
                ("cores", str(host.get("cores", {}).get("usable", "not known"))),
                ("energy", evidence.energy_grade),
                ("commit", str(evidence.environment.get("commit"))),
            ]
        ),
    )
    return Section(anchor="conditions", title="Under which conditions", body=body)


def _median(values: Sequence[float | None]) -> str:
    known = [v for v in values if v is not None]
    return "not known" if not known else f"{percentile(known, 0.5):.2g}"


def render_limits(evidence: ServingEvidence, look: Look) -> Section:
    """`look` is not needed: nothing is drawn."""
    attempts = sum(entry.event == "proof" for entry in evidence.ledger)
    verdicts = ("proven", "not proven", "no verdict")
    earlier = [f"{e.time}: {e.event}, {e.detail}" for e in evidence.ledger if e.event in verdicts]
    body = join(
        bullets(evidence.threats),
        paragraph(
            f"{wording.plural(attempts, 'proof')} of this experiment begun so far, this one "
            "included."
        ),
        folded("What earlier ones came to", bullets(earlier)) if earlier else None,
    )
    return Section(anchor="limits", title="What the result does not say", body=body)


def render_repeat(evidence: ServingEvidence, look: Look) -> Section:
    """`look` is not needed: nothing is drawn."""
    words = json.dumps(evidence.experiment, indent=2, ensure_ascii=False, default=str)
    body = join(
        listing(
            [
                ("run it again", code("twofold prove EXPERIMENT")),
                ("check this one", code("twofold prove --check evidence.json")),
                ("evidence (content)", code(content_hash(asdict(evidence)))),
                ("predictions and rates", code(evidence.predictions_hash or "none")),
            ]
        ),
        folded(
            "The experiment as it was read",
            tag("pre", tag("code", words[:_LONGEST_EXPERIMENT]), tabindex="0"),
        ),
    )
    return Section(anchor="repeat", title="How to repeat and to check", body=body)
