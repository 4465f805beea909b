"""Time to the one target loss, of every arm and seed, and the speed-up that may be read from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from twofold.evidence.crossing import Crossing, find_crossing, unknown_crossing
from twofold.evidence.records import Arm, Ratio, Sample
from twofold.evidence.runs import Runs
from twofold.evidence.statistics import ratio_or_none

Crossings = Mapping[tuple[str, int], Crossing]
"""By (arm, block)."""


def crossings_of(runs: Runs, target: float | None) -> Crossings:
    """Empty without a target."""
    if target is None:
        return {}
    return {
        (arm.name, block): _crossing(runs.lengths(arm, block), target)
        for arm in runs.arms.values()
        for block in runs.blocks(arm)
    }


def crossing_rows(runs: Runs, crossings: Crossings) -> list[dict[str, Any]]:
    """As `Derived.crossings` keeps them."""
    return [
        {
            "arm": arm,
            "seed": runs.lengths(runs.arms[arm], block)[0].seed,
            "block": block,
            "train_s": crossing.train_s,
            "tokens": crossing.tokens,
            "low_s": crossing.low_s,
            "high_s": crossing.high_s,
            "note": crossing.note,
        }
        for (arm, block), crossing in crossings.items()
    ]


def ratio_to_target(
    runs: Runs, crossings: Crossings, arm: Arm, baseline: Arm
) -> tuple[Ratio | None, str]:
    """The least time of the baseline over the most of the arm, block by block; or None and why.

    Every block must yield a pair: leaving out the seed on which the arm missed the target, or on
    which the baseline was below it from the start, would flatter the arm.
    """
    if not crossings:
        return None, ""
    pairs = []
    for block in runs.blocks(arm):
        for side, bound in ((arm, "high_s"), (baseline, "low_s")):
            crossing = crossings.get((side.name, block))
            if crossing is None or getattr(crossing, bound) is None:
                why = "not run" if crossing is None else crossing.note
                return None, f"no time to the target: '{side.name}' in block {block}: {why}"
        low_s = crossings[baseline.name, block].low_s
        high_s = crossings[arm.name, block].high_s
        assert low_s is not None
        assert high_s is not None
        pairs.append((block, low_s / high_s))
    return ratio_or_none(pairs), ""


def _crossing(samples: Sequence[Sample], target: float) -> Crossing:
    lengths = [
        (sample.train_s, float(sample.tokens), sample.test_loss)
        for sample in samples
        if sample.test_loss is not None
    ]
    if len(lengths) < len(samples):
        return unknown_crossing("no held-out loss reported")
    return find_crossing(lengths, target)
