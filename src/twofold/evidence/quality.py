"""Equal quality: held-out loss against a margin that was fixed beforehand."""

from __future__ import annotations

import math
from collections.abc import Sequence

from twofold.evidence.records import Arm, Evidence, Quality
from twofold.evidence.runs import Runs
from twofold.evidence.statistics import upper_bound


def compare_losses(
    evidence: Evidence, runs: Runs, arm: Arm, baseline: Arm, *, same_maths: bool
) -> tuple[Quality | None, str]:
    """The quality test of a comparison, or None and what it lacks.

    A lost loss is a lack and is never left out: the run that diverged is the one that matters.
    """
    for side in (arm, baseline):
        samples = runs.fixed(side).values()
        missing = sum(sample.test_loss is None for sample in samples)
        if missing == len(samples):
            return None, f"no held-out loss reported by '{side.name}'"
        if missing:
            return None, f"no held-out loss in {missing} of {len(samples)} runs of '{side.name}'"
    ours, theirs = runs.fixed(arm), runs.fixed(baseline)
    shared = ours.keys() & theirs.keys()
    if not shared or any(ours[block].seed != theirs[block].seed for block in shared):
        return None, f"'{arm.name}' and '{baseline.name}' did not run with the same seeds"
    differences = runs.loss_differences(arm, baseline)
    points = [
        (float(sample.tokens), sample.test_loss)
        for block in runs.blocks(baseline)
        for sample in runs.lengths(baseline, block)
        if sample.test_loss is not None
    ]
    test = at_parity if same_maths else non_inferior
    margin = evidence.margin
    return test(differences, margin, margin_time_fraction=margin_time_fraction(points, margin)), ""


def non_inferior(
    differences: Sequence[float], margin: float, *, margin_time_fraction: float | None = None
) -> Quality:
    """Is the arm no worse? `differences` are losses, arm minus baseline, one a seed.

    Passed when the one-sided 95 % upper t bound of their mean is at most `margin` (nats).
    """
    return _judge(differences, upper_bound(differences), margin, margin_time_fraction)


def at_parity(
    differences: Sequence[float], margin: float, *, margin_time_fraction: float | None = None
) -> Quality:
    """Is the loss the same? A loss lower by more than the margin fails as well: then the arms do
    not compute the same thing.

    Two one-sided tests (Schuirmann 1987): passed when both 95 % bounds lie within ± `margin`.
    """
    above = upper_bound(differences)
    below = upper_bound([-d for d in differences])
    bound = None if above is None or below is None else max(above, below)
    return _judge(differences, bound, margin, margin_time_fraction)


def _judge(
    differences: Sequence[float],
    bound: float | None,
    margin: float,
    margin_time_fraction: float | None,
) -> Quality:
    return Quality(
        difference=math.fsum(differences) / len(differences),
        upper=bound,
        margin=margin,
        passed=bound is not None and bound <= margin,
        margin_time_fraction=margin_time_fraction,
    )


def loss_per_log_token(points: Sequence[tuple[float, float]]) -> float | None:
    """Least-squares slope of loss against ln(tokens), from (tokens, loss) of complete runs.

    None for fewer than two different lengths. Negative where more training helps.
    """
    if len({tokens for tokens, _ in points}) < 2:
        return None
    xs = [math.log(tokens) for tokens, _ in points]
    x_mean = math.fsum(xs) / len(xs)
    y_mean = math.fsum(loss for _, loss in points) / len(points)
    covariance = math.fsum(
        (x - x_mean) * (loss - y_mean) for x, (_, loss) in zip(xs, points, strict=True)
    )
    return covariance / math.fsum((x - x_mean) ** 2 for x in xs)


def margin_time_fraction(points: Sequence[tuple[float, float]], margin: float) -> float | None:
    """The quality margin as time: exp(margin / -slope) - 1, at constant tokens/s.

    The share by which the baseline, whose (tokens, loss) are given, would have to train longer
    to lower its loss by `margin`. None where its loss does not fall with tokens.
    """
    slope = loss_per_log_token(points)
    if slope is None or slope >= 0:
        return None
    exponent = margin / -slope
    return math.expm1(exponent) if exponent < 700 else None
