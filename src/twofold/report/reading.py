"""What the page reads off the evidence: means, medians and matches, none of them a claim."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from statistics import median
from typing import Any

from twofold.evidence.records import Arm, Evidence, Ratio, Result, Sample
from twofold.evidence.runs import claim_clock, total_s


def runs_of(evidence: Evidence, arm: str) -> list[Sample]:
    """The arm's runs in the proof, without its A/A pairs."""
    return [s for s in evidence.samples if s.arm == arm and s.role == "run"]


def claimed_runs(evidence: Evidence, arm: str) -> list[Sample]:
    """The arm's runs at the length the claim is read at."""
    return [s for s in runs_of(evidence, arm) if s.fixed]


def results_of(evidence: Evidence) -> list[Result]:
    return [] if evidence.derived is None else evidence.derived.results


def geometric_mean(values: Iterable[float]) -> float | None:
    """None for no values. A quotient of two such means is the mean of paired ratios."""
    logs = [math.log(v) for v in values if v > 0 and math.isfinite(v)]
    return math.exp(math.fsum(logs) / len(logs)) if logs else None


def median_of(values: Iterable[float | None]) -> float | None:
    known = [v for v in values if v is not None and math.isfinite(v)]
    return median(known) if known else None


def paired_times_s(
    evidence: Evidence, result: Result, ratio: Ratio, clock: Callable[[Sample], float]
) -> tuple[float, float] | None:
    """Geometric mean times (baseline, arm) over the blocks of the ratio's pairs."""
    blocks = {block for block, _ in ratio.pairs}
    means = [
        geometric_mean(clock(s) for s in claimed_runs(evidence, arm) if s.block in blocks)
        for arm in (result.baseline, result.arm)
    ]
    baseline_s, arm_s = means
    return None if baseline_s is None or arm_s is None else (baseline_s, arm_s)


def training_clock(sample: Sample) -> float:
    return sample.train_s


def claimed_clock(evidence: Evidence, result: Result) -> Callable[[Sample], float]:
    """The clock that `fixed` was read on: training, or all of it where a command ran."""
    arms = {arm.name: arm for arm in evidence.arms}
    arm, baseline = arms.get(result.arm), arms.get(result.baseline)
    if arm is None or baseline is None:
        return training_clock
    clock = claim_clock(arm, baseline, same_maths=result.kind == "same maths")
    return whole_clock if clock is total_s else training_clock


def whole_clock(sample: Sample) -> float:
    return sample.startup_s + sample.train_s


def per_token(clock: Callable[[Sample], float]) -> Callable[[Sample], float]:
    """NaN, which means pass over, for a run that does not say its tokens."""
    return lambda sample: clock(sample) / sample.tokens if sample.tokens else math.nan


def crossings_of(evidence: Evidence, arm: str) -> list[dict[str, Any]]:
    """The arm's interpolated crossings of the target, those that have one."""
    rows = [] if evidence.derived is None else evidence.derived.crossings
    return [row for row in rows if row.get("arm") == arm and row.get("train_s")]


def measured_step_s(evidence: Evidence, arm: str) -> float | None:
    """The median over runs of their median step."""
    return median_of(s.step_time_median_s for s in runs_of(evidence, arm))


def measured_memory_bytes(evidence: Evidence, arm: str) -> float | None:
    return median_of(s.peak_memory_bytes for s in runs_of(evidence, arm))


def tokens_per_s(evidence: Evidence, arm: str) -> float | None:
    return median_of(s.tokens / s.train_s for s in runs_of(evidence, arm) if s.train_s > 0)


def levers(arm: Arm) -> str:
    """The plan in a few words, or the command."""
    if arm.command is not None:
        return arm.command
    plan = (arm.plan or {}).get("plan")
    if not isinstance(plan, dict):
        return "no plan recorded"
    words = [
        str(plan[key]) + suffix
        for key, suffix in (
            ("precision", ""), ("attention", " attention"), ("threads", " threads"),
            ("optimizer_kernel", " optimizer"),
        )
        if key in plan
    ]  # fmt: skip
    if plan.get("recompute", "none") != "none":
        words.append(f"recompute {plan['recompute']}")
    if plan.get("compile"):
        words.append("compiled")
    return ", ".join(words) or "no plan recorded"


def measured_token_s(evidence: Evidence, arm: str) -> float | None:
    return median_of(s.train_s / s.tokens for s in runs_of(evidence, arm) if s.tokens > 0)


def evenly(items: Sequence[Any], most: int) -> list[Any]:
    """At most `most` items, spaced evenly, the first and the last among them."""
    if len(items) <= most:
        return list(items)
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]
