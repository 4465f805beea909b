"""Every figure of a proof, from its raw samples alone. `check` runs this again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Literal

from twofold.errors import InputError
from twofold.evidence.causes import attribute
from twofold.evidence.obstacles import find_obstacles
from twofold.evidence.predicted import predicted_ratio
from twofold.evidence.quality import compare_losses
from twofold.evidence.records import Arm, Derived, Evidence, NoiseFloor, Result, Sample
from twofold.evidence.runs import (
    Runs,
    claim_clock,
    collect_runs,
    per_token,
    total_s,
    train_s,
)
from twofold.evidence.statistics import paired_ratio, pairs_needed, ratio_or_none
from twofold.evidence.target import Crossings, crossing_rows, crossings_of, ratio_to_target
from twofold.evidence.verdict import MINIMUM_PAIRS, Grounds, judge

HALF_WIDTH = 0.05
"""The A/A pairs size the proof so that its interval is about this fraction to either side."""
MAXIMUM_PAIRS = 12

Kind = Literal["same maths", "same loss"]


def derive(evidence: Evidence) -> Derived:
    """Raises InputError where the samples contradict themselves or a comparison is not legal."""
    try:
        return _derive(evidence)
    except (ArithmeticError, ValueError) as error:
        raise InputError(
            f"the samples hold numbers that cannot be computed with: {error}",
            at="evidence, samples",
            help="the evidence is damaged; prove again",
        ) from error


def _derive(evidence: Evidence) -> Derived:
    runs = collect_runs(evidence)
    crossings = crossings_of(runs, evidence.target_loss)
    noise_floor = derive_noise_floor(evidence.samples)
    return Derived(
        noise_floor=noise_floor,
        results=[
            _result(evidence, runs, crossings, noise_floor, kind, runs.arm(arm), runs.arm(base))
            for kind, arm, base in evidence.comparisons
        ],
        crossings=crossing_rows(runs, crossings),
    )


def derive_noise_floor(samples: Sequence[Sample]) -> NoiseFloor | None:
    """The same arm against itself: consecutive A/A samples of an arm within a block are a pair.

    None without A/A pairs. Can be called before the first real run, to size the proof.
    """
    by_place: dict[tuple[str, int], list[Sample]] = defaultdict(list)
    for sample in samples:
        if sample.role == "aa":
            by_place[sample.arm, sample.block].append(sample)
    cost = per_token(train_s)
    pairs = []
    for (_, block), group in sorted(by_place.items()):
        ordered = sorted(group, key=lambda sample: sample.position)
        pairs += [
            (block, cost(first) / cost(second))
            for first, second in zip(ordered[::2], ordered[1::2], strict=False)
        ]
    if not pairs:
        return None
    ratio = paired_ratio(pairs)
    return NoiseFloor(
        ratio=ratio,
        covers_one=ratio.low is None or ratio.high is None or ratio.low <= 1 <= ratio.high,
        pairs_needed=MAXIMUM_PAIRS
        if ratio.spread is None
        else pairs_needed(
            ratio.spread, half_width=HALF_WIDTH, minimum=MINIMUM_PAIRS, maximum=MAXIMUM_PAIRS
        ),
    )


def _result(
    evidence: Evidence,
    runs: Runs,
    crossings: Crossings,
    noise_floor: NoiseFloor | None,
    kind: Kind,
    arm: Arm,
    baseline: Arm,
) -> Result:
    """Same maths is compared per token, same loss by the whole run at each arm's fixed length."""
    same_maths = kind == "same maths"
    if same_maths:
        _require_same_maths(arm, baseline)
    clock = claim_clock(arm, baseline, same_maths=same_maths)
    fixed, fixed_with_startup = (
        ratio_or_none(runs.ratios(baseline, arm, per_token(cost) if same_maths else cost))
        for cost in (clock, total_s)
    )
    removed = ratio_or_none(runs.ratios(baseline, arm, lambda sample: sample.tokens))
    faster = ratio_or_none(runs.ratios(baseline, arm, per_token(clock)))
    quality, quality_lack = compare_losses(evidence, runs, arm, baseline, same_maths=same_maths)
    causes = attribute(evidence, runs, arm, baseline)
    to_target, to_target_lack = ratio_to_target(runs, crossings, arm, baseline)
    verdict, reason = judge(
        Grounds(
            arm=arm.name,
            baseline=baseline.name,
            same_maths=same_maths,
            maths_is_stated=same_maths and arm.model_hash is None,
            planned_pairs=evidence.planned_blocks,
            fixed=fixed,
            fixed_with_startup=fixed_with_startup,
            noise_floor=noise_floor,
            quality=quality,
            quality_lack=quality_lack,
            obstacles=find_obstacles(evidence, runs, arm, baseline, same_maths=same_maths),
        )
    )
    lacks = [] if same_maths else [causes.lack, to_target_lack]
    return Result(
        kind=kind,
        arm=arm.name,
        baseline=baseline.name,
        verdict=verdict,
        reason=reason,
        fixed=fixed,
        fixed_with_startup=fixed_with_startup,
        to_target=None if same_maths else to_target,
        work_removed=None if removed is None else 1.0 if same_maths else removed.value,
        work_faster=None if faster is None else faster.value,
        quality=quality,
        predicted=predicted_ratio(runs, arm, baseline, same_maths=same_maths),
        attribution=[] if same_maths else causes.factors,
        interaction=None if same_maths else causes.interaction,
        notes=[lack for lack in lacks if lack],
    )


def _require_same_maths(arm: Arm, baseline: Arm) -> None:
    for what, ours, theirs in (
        ("model", arm.model_hash, baseline.model_hash),
        ("workload", arm.workload_hash, baseline.workload_hash),
    ):
        if ours != theirs:
            raise InputError(
                f"'{arm.name}' and '{baseline.name}' do not share one {what}, so they are not the "
                f"same maths (hashes {ours} and {theirs})",
                at="experiment, comparisons",
                help='compare them as "same loss"',
            )
