"""The speed-up that follows from what was written down before the first sample."""

from __future__ import annotations

from twofold.evidence.records import Arm
from twofold.evidence.runs import Runs


def predicted_ratio(runs: Runs, arm: Arm, baseline: Arm, *, same_maths: bool) -> float | None:
    """Predicted time of the baseline over that of the arm; None where one has no prediction.

    Same maths: per token. Same loss: steps to the target where both arms predict them, else the
    steps of the fixed length, times the step time.
    """
    to_target = not same_maths and all(
        side.prediction is not None and side.prediction.tokens_to_target is not None
        for side in (arm, baseline)
    )
    ours = _predicted_s(runs, arm, to_target=to_target, per_token=same_maths)
    theirs = _predicted_s(runs, baseline, to_target=to_target, per_token=same_maths)
    return None if ours is None or theirs is None else theirs / ours


def _predicted_s(runs: Runs, arm: Arm, *, to_target: bool, per_token: bool) -> float | None:
    """Predicted seconds to the target, of the run at the fixed length, or of one token of it."""
    prediction = arm.prediction
    fixed = next(iter(runs.fixed(arm).values()), None)
    if prediction is None or fixed is None or fixed.num_steps < 1:
        return None
    step_tokens = fixed.tokens / fixed.num_steps
    if per_token:
        return prediction.step_time_s / step_tokens
    if to_target and prediction.tokens_to_target is not None:
        return prediction.step_time_s * prediction.tokens_to_target / step_tokens
    return prediction.step_time_s * fixed.num_steps
