"""Answers as a `ServingOutcome`: the same fields as a prediction."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from twofold.evidence.serving.answers import Answer
from twofold.evidence.serving.tails import percentile
from twofold.outcome import EnergyGrade
from twofold.serving_outcome import Percentiles, ServingOutcome
from twofold.workload.serve import Targets


def outcome_of(
    answers: Sequence[Answer],
    targets: Targets,
    *,
    open_loop: bool = True,
    energy_j: float | None = None,
    energy_grade: EnergyGrade = "unknown",
) -> ServingOutcome | None:
    """Over the judged `answers`; None where not one is whole. Latencies are those of the whole
    ones, and a request without an answer meets no target.

    Goodput is the share that met the targets x the rate at which requests were sent. Of an open
    loop that is the rate of the intended times: how long the last answers take does not count, and
    a server that dies half-way does not shorten the time.
    """
    whole = [answer for answer in answers if answer.whole]
    if not whole:
        return None
    duration_s = max(a.end_s for a in answers) - min(a.intended_s for a in answers)
    share = None
    if has_limits(targets):
        share = sum(answer.meets(targets) for answer in answers) / len(answers)
    sent_per_s = (_intended_per_s(answers) if open_loop else None) or len(answers) / duration_s
    tpots_s = [answer.tpot_s for answer in whole if answer.tpot_s is not None]
    cached = sum(answer.cached_tokens or 0 for answer in whole)
    input_tokens = sum(answer.input_tokens for answer in whole)
    return ServingOutcome(
        num_requests=len(whole),
        duration_s=duration_s,
        input_tokens=input_tokens,
        output_tokens=sum(answer.output_tokens for answer in whole),
        ttft_s=percentiles([answer.ttft_s or 0.0 for answer in whole]),
        tpot_s=percentiles(tpots_s) if tpots_s else None,
        e2e_s=percentiles([answer.e2e_s for answer in whole]),
        goodput_per_s=None if share is None else share * sent_per_s,
        attained_fraction=share,
        cached_fraction=cached / input_tokens if input_tokens else 0.0,
        energy_j=energy_j,
        energy_grade=energy_grade if energy_j is not None else "unknown",
    )


def _intended_per_s(answers: Sequence[Answer]) -> float | None:
    """None where all were to be sent at once."""
    times_s = [answer.intended_s for answer in answers]
    span_s = max(times_s) - min(times_s)
    return (len(times_s) - 1) / span_s if span_s > 0 else None


def has_limits(targets: Targets) -> bool:
    return any(t is not None for t in (targets.ttft_s, targets.tpot_s, targets.e2e_s))


def percentiles(values: Sequence[float]) -> Percentiles:
    return Percentiles(
        mean=math.fsum(values) / len(values),
        p50=percentile(values, 0.5),
        p90=percentile(values, 0.9),
        p99=percentile(values, 0.99),
    )


def gaps_s(answers: Sequence[Answer]) -> list[float]:
    """Inter-token latencies: between the chunks of every whole answer, over all of them. They
    differ from TPOT where a chunk holds several tokens, or where an answer stalls."""
    return [b - a for answer in answers if answer.whole for a, b in pairwise(answer.chunks_s)]
