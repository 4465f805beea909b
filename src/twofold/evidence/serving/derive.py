"""Every figure of a proof of serving, from its stretches alone. `check` runs this again."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Sequence
from typing import Literal

from twofold.errors import InputError
from twofold.evidence.records import NoiseFloor
from twofold.evidence.serving.answers import Stretch
from twofold.evidence.serving.causes import attribute_goodput
from twofold.evidence.serving.goodput import Point, goodput
from twofold.evidence.serving.quality import compare_answers
from twofold.evidence.serving.records import (
    Compared,
    GoodputRow,
    NamedTargets,
    ServingArm,
    ServingDerived,
    ServingEvidence,
    ServingQuality,
)
from twofold.evidence.serving.verdict import judge
from twofold.evidence.statistics import paired_ratio
from twofold.workload.serve import Targets


def derive_serving(evidence: ServingEvidence) -> ServingDerived:
    """Raises InputError where the samples cannot be computed with."""
    try:
        return _derive(evidence)
    except (ArithmeticError, ValueError, KeyError, StopIteration) as error:
        raise InputError(
            f"the samples cannot be computed with: {type(error).__name__} {error}",
            at="evidence, stretches",
            help="the evidence is damaged; prove again",
        ) from error


def targets_of(
    unloaded: Sequence[Stretch], times: dict[str, float], attainment: float
) -> list[NamedTargets]:
    """So many times the medians of TTFT and TPOT of one user alone."""
    answers = [a for stretch in unloaded for a in stretch.judged if a.whole]
    ttft_s = statistics.median(a.ttft_s for a in answers if a.ttft_s is not None)
    tpot_s = statistics.median(a.tpot_s for a in answers if a.tpot_s is not None)
    return [
        NamedTargets(
            name=name,
            times_unloaded=factor,
            targets=Targets(ttft_s=factor * ttft_s, tpot_s=factor * tpot_s, attainment=attainment),
        )
        for name, factor in times.items()
    ]


def _derive(evidence: ServingEvidence) -> ServingDerived:
    goodputs = [
        row
        for named in evidence.targets
        for arm in evidence.arms
        for row in _goodputs(evidence, arm, named, "rate")
    ]
    claimed = next(t for t in evidence.targets if t.name == evidence.claimed)
    noise_floor = derive_serving_noise(evidence, claimed)
    arms = {arm.name: arm for arm in evidence.arms}
    quality: dict[str, ServingQuality] = {}
    for name, baseline in evidence.comparisons:
        found = compare_answers(evidence, arms[name], arms[baseline])
        if found is not None and name not in quality:
            quality[name] = found
    factors, note = attribute_goodput(
        evidence.arms, evidence.levers, [r for r in goodputs if r.target == evidence.claimed]
    )
    return ServingDerived(
        noise_floor=noise_floor,
        goodputs=goodputs,
        results=[
            judge(
                evidence,
                goodputs,
                noise_floor,
                compare_answers(evidence, arms[name], arms[baseline]),
                named.name,
                arms[name],
                arms[baseline],
            )
            for named in evidence.targets
            for name, baseline in evidence.comparisons
        ],
        quality=quality,
        attribution=factors,
        attribution_note=note,
        compared=[row for arm in evidence.arms for row in _compared(evidence, arm, goodputs)],
    )


def derive_serving_noise(evidence: ServingEvidence, claimed: NamedTargets) -> NoiseFloor | None:
    """The same arm twice in every block, at the same rates and seeds: what "gain" there is where
    there is none."""
    pairs = []
    for arm in evidence.arms:
        once = {r.block: r.value for r in _goodputs(evidence, arm, claimed, "rate")}
        again = {r.block: r.value for r in _goodputs(evidence, arm, claimed, "aa")}
        for block in sorted(once.keys() & again.keys()):
            first, second = once[block], again[block]
            if first is not None and second is not None:
                pairs.append((block, first / second))
    if not pairs:
        return None
    ratio = paired_ratio(pairs)
    covers = ratio.low is None or ratio.high is None or ratio.low <= 1 <= ratio.high
    return NoiseFloor(ratio=ratio, covers_one=covers, pairs_needed=evidence.planned_blocks)


def points_of(stretches: Sequence[Stretch], targets: Targets) -> list[Point]:
    """Attainment at each rate; stretches of one rate are taken together."""
    by_rate: dict[float, list[Stretch]] = defaultdict(list)
    for stretch in stretches:
        if stretch.rate_per_s is not None and stretch.judged:
            by_rate[stretch.rate_per_s].append(stretch)
    points = []
    for rate, group in sorted(by_rate.items()):
        num = sum(len(stretch.judged) for stretch in group)
        met = sum(answer.meets(targets) for stretch in group for answer in stretch.judged)
        points.append(Point(rate_per_s=rate, attained=met / num, num=num))
    return points


def _goodputs(
    evidence: ServingEvidence,
    arm: ServingArm,
    named: NamedTargets,
    kind: Literal["rate", "aa"],
) -> list[GoodputRow]:
    by_block: dict[int, list[Stretch]] = defaultdict(list)
    for stretch in evidence.stretches:
        if stretch.arm == arm.name and stretch.kind == kind and stretch.block >= 0:
            by_block[stretch.block].append(stretch)
    rows = []
    for block, stretches in sorted(by_block.items()):
        found = goodput(points_of(stretches, named.targets), named.targets.attainment)
        rows.append(
            GoodputRow(
                arm=arm.name,
                target=named.name,
                block=block,
                value=found.value,
                low=found.low,
                high=found.high,
            )
        )
    return rows


def _compared(
    evidence: ServingEvidence, arm: ServingArm, goodputs: Sequence[GoodputRow]
) -> list[Compared]:
    if arm.prediction is None:
        return []
    rows = []
    for named in evidence.targets:
        predicted = arm.prediction.goodput_per_s.get(named.name)
        values = [
            r.value
            for r in goodputs
            if r.arm == arm.name and r.target == named.name and r.value and r.high is not None
        ]
        if predicted and values and named.name == evidence.claimed:
            measured = math.exp(math.fsum(math.log(v) for v in values) / len(values))
            rows.append(_row(arm, "goodput", None, predicted, measured))
    for expected in arm.prediction.rates:
        stretches = [
            s
            for s in evidence.stretches
            if s.arm == arm.name
            and s.block >= 0
            and (s.kind == "rate" if expected.rate_per_s is not None else s.kind == "offline")
            and s.rate_per_s == expected.rate_per_s
        ]
        rows += _at_rate(arm, expected.rate_per_s, stretches)
    return rows


def _at_rate(arm: ServingArm, rate: float | None, stretches: Sequence[Stretch]) -> list[Compared]:
    assert arm.prediction is not None
    expected = next(p for p in arm.prediction.rates if p.rate_per_s == rate)
    answers = [a for s in stretches for a in s.judged if a.whole]
    if not answers:
        return []
    rows = []
    tpots_s = [a.tpot_s for a in answers if a.tpot_s is not None]
    if expected.tpot_p50_s is not None and tpots_s:
        rows.append(_row(arm, "TPOT", rate, expected.tpot_p50_s, statistics.median(tpots_s)))
    if rate is not None:
        ttfts_s = [a.ttft_s for a in answers if a.ttft_s is not None]
        rows.append(_row(arm, "TTFT", rate, expected.ttft_p50_s, statistics.median(ttfts_s)))
    else:
        spans_s = [_span_s(s) for s in stretches]
        tokens = sum(a.output_tokens for a in answers)
        rows.append(
            _row(arm, "output tokens/s", None, expected.output_tokens_per_s, tokens / sum(spans_s))
        )
    return rows


def _span_s(stretch: Stretch) -> float:
    """From the first judged request to the last answer."""
    judged = stretch.judged
    return max(a.end_s for a in judged) - min(a.intended_s for a in judged)


def _row(
    arm: ServingArm,
    quantity: Literal["goodput", "output tokens/s", "TPOT", "TTFT"],
    rate: float | None,
    predicted: float,
    measured: float,
) -> Compared:
    return Compared(
        arm=arm.name, quantity=quantity, rate_per_s=rate, predicted=predicted, measured=measured
    )
