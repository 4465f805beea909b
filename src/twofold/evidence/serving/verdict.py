"""What may be said of an arm's goodput: proven, not proven, or no verdict; and why."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence

from twofold.evidence.records import NoiseFloor, Ratio
from twofold.evidence.serving.records import (
    GoodputRow,
    ServingArm,
    ServingEvidence,
    ServingQuality,
    ServingResult,
    Verdict,
)
from twofold.evidence.statistics import ratio_or_none
from twofold.evidence.verdict import MINIMUM_PAIRS, least_gain

BUSY_CORES = 0.5
"""Median of what others took of the cores: past this the machine measured itself and them."""


def judge(
    evidence: ServingEvidence,
    goodputs: Sequence[GoodputRow],
    floor: NoiseFloor | None,
    quality: ServingQuality | None,
    target: str,
    arm: ServingArm,
    baseline: ServingArm,
) -> ServingResult:
    """The ratio is paired by block. In the few blocks in which the baseline misses its target even
    at the lowest rate, that rate, which its goodput lies below, stands for it.
    """
    ours, theirs = (
        {r.block: r for r in goodputs if r.arm == side.name and r.target == target}
        for side in (arm, baseline)
    )
    mostly_empty = _is_mostly_empty(theirs)
    pairs = [
        (block, ours_value / theirs_value)
        for block in sorted(ours.keys() & theirs.keys())
        if (ours_value := ours[block].value) is not None
        and (theirs_value := theirs[block].value or (None if mostly_empty else theirs[block].high))
    ]
    ratio = ratio_or_none(pairs)
    obstacle = _obstacle(evidence, target, arm, baseline, ours, theirs, len(pairs))
    verdict, reason = _verdict(evidence, ratio, floor, quality, obstacle, arm, baseline)
    return ServingResult(
        target=target,
        arm=arm.name,
        baseline=baseline.name,
        verdict=verdict,
        reason=reason,
        ratio=ratio,
        lower_bound=any(
            ours[block].high is None or theirs[block].value is None for block, _ in pairs
        ),
        goodput_per_s=_mean(ours.values()),
        baseline_per_s=_mean(theirs.values()),
        predicted=_predicted(target, arm, baseline),
    )


def _is_mostly_empty(rows: dict[int, GoodputRow]) -> bool:
    return 2 * sum(row.value is None for row in rows.values()) > len(rows)


def _mean(rows: Iterable[GoodputRow]) -> float | None:
    values = [row.value for row in rows if row.value is not None]
    if not values:
        return None
    return math.exp(math.fsum(math.log(v) for v in values) / len(values))


def _predicted(target: str, arm: ServingArm, baseline: ServingArm) -> float | None:
    if arm.prediction is None or baseline.prediction is None:
        return None
    ours = arm.prediction.goodput_per_s.get(target)
    theirs = baseline.prediction.goodput_per_s.get(target)
    return ours / theirs if ours and theirs else None


def _obstacle(
    evidence: ServingEvidence,
    target: str,
    arm: ServingArm,
    baseline: ServingArm,
    ours: dict[int, GoodputRow],
    theirs: dict[int, GoodputRow],
    num_pairs: int,
) -> str | None:
    if evidence.smoke:
        return "a smoke test proves nothing"
    here = {side.name for side in evidence.arms if side.url is None}
    crowded = [  # what serves behind a URL may be one of the others
        s.crowded_cores for s in evidence.stretches if s.arm in here and s.crowded_cores is not None
    ]
    if crowded and statistics.median(crowded) > BUSY_CORES:
        return (
            f"other processes took {statistics.median(crowded):.1f} cores while it was measured "
            "(median)"
        )
    empty = [row for row in theirs.values() if row.value is None]
    if _is_mostly_empty(theirs):
        lowest = min(row.high for row in empty if row.high is not None)
        return (
            f"'{baseline.name}' did not meet the {target} target at the lowest rate it was run "
            f"at ({lowest:.3g} requests/s) in {len(empty)} of {len(theirs)} blocks, and there is "
            "no ratio to nothing"
        )
    open_ended = [row for row in theirs.values() if row.high is None]
    if open_ended:
        return (
            f"'{baseline.name}' met the {target} target at its highest rate in "
            f"{len(open_ended)} of {len(theirs)} blocks, so its goodput is only known to be higher"
        )
    if any(row.value is None for row in ours.values()):
        return f"'{arm.name}' did not meet the {target} target at the lowest rate it was run at"
    if num_pairs < MINIMUM_PAIRS:
        return f"{num_pairs} pairs are fewer than the {MINIMUM_PAIRS} that are needed"
    return None


def _verdict(
    evidence: ServingEvidence,
    ratio: Ratio | None,
    floor: NoiseFloor | None,
    quality: ServingQuality | None,
    obstacle: str | None,
    arm: ServingArm,
    baseline: ServingArm,
) -> tuple[Verdict, str]:
    if obstacle is not None:
        return "no verdict", obstacle
    assert ratio is not None
    assert ratio.low is not None
    gain = (
        f"'{arm.name}' serves {ratio.value:.3g}x the requests of '{baseline.name}' within the "
        f"target (95 % interval {ratio.low:.3g}-{ratio.high:.3g}, {len(ratio.pairs)} pairs)"
    )
    if floor is None:
        return "no verdict", f"{gain}, but the noise floor is unknown: no A/A pairs"
    if quality is None:
        return "no verdict", f"{gain}, but equal quality was not checked"
    if not quality.passed:
        return "not proven", f"{gain}, but quality differs: {quality.reason}"
    if ratio.low <= 1.0:
        return "not proven", f"{gain}: the interval does not lie above 1"
    if ratio.low <= least_gain(floor):
        return "not proven", (
            f"{gain}, which does not exceed what the same arm shows against itself "
            f"({floor.ratio.value:.3g}x)"
        )
    return "proven", f"{gain}; {quality.reason}"
