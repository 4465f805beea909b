"""How long an arm trains: the shortest run that reaches the baseline's loss, schedule complete."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from twofold.measure.trials import Bench, Winner, run_trials
from twofold.measure.tuned import LengthTrial

_LADDER = (0.125, 0.177, 0.25, 0.354, 0.5, 0.707, 1.0)
_LENGTHEN = 1.12
_MOST_LENGTHENINGS = 5


def lengths_of(bench: Bench, winner: Winner, tokens: int) -> tuple[int, ...]:
    """Whole steps, rising, the last one the fixed length."""
    step = winner.recipe.global_batch * bench.seq_len
    return tuple(
        max(1, round(fraction * tokens / step)) * step for fraction in bench.tuning.length_fractions
    )


def run_lengths(
    bench: Bench, winner: Winner, lengths: Sequence[int], seeds: Sequence[int]
) -> list[LengthTrial]:
    trials = []
    for seed in seeds:
        wanted = [(winner.recipe, tokens) for tokens in lengths]
        for run in run_trials(bench, winner.model, winner.plan, wanted, seed):
            loss = None if run.diverged else run.tune_loss
            trials.append(LengthTrial(seed=seed, tokens=run.tokens, tune_loss=loss))
    return trials


def shortest_length(
    bench: Bench, winner: Winner, wanted_loss: float
) -> tuple[int, list[LengthTrial]]:
    """The fewest tokens that reach the loss on every tuning seed's mean, schedule complete."""
    longest = bench.tuning.baseline_s * winner.tokens_per_s
    step = winner.recipe.global_batch * bench.seq_len
    ladder = [max(1, round(fraction * longest / step)) * step for fraction in _LADDER]
    trials: list[LengthTrial] = []
    tokens = ladder[-1]
    for rung in ladder:
        trials += run_lengths(bench, winner, [rung], bench.tuning.seeds[:1])
        loss = trials[-1].tune_loss
        if loss is not None and loss <= wanted_loss:
            tokens = _between(trials, wanted_loss, step)
            break
    for _ in range(_MOST_LENGTHENINGS):
        attempt = run_lengths(bench, winner, [tokens], bench.tuning.seeds)
        trials += attempt
        if mean_loss(attempt, tokens) <= wanted_loss:
            return tokens, trials
        tokens = math.ceil(tokens * _LENGTHEN / step) * step
    return tokens, trials


def _between(trials: Sequence[LengthTrial], wanted_loss: float, step: int) -> int:
    """Tokens at the wanted loss between the last two rungs, linear in log tokens."""
    last = trials[-1]
    if len(trials) < 2:
        return last.tokens
    before = trials[-2]
    if before.tune_loss is None or last.tune_loss is None:
        return last.tokens
    share = (before.tune_loss - wanted_loss) / (before.tune_loss - last.tune_loss)
    growth = math.log(last.tokens / before.tokens)
    return math.ceil(before.tokens * math.exp(share * growth) / step) * step


def mean_loss(trials: Sequence[LengthTrial], tokens: int) -> float:
    losses = [
        math.inf if trial.tune_loss is None else trial.tune_loss
        for trial in trials
        if trial.tokens == tokens
    ]
    return statistics.fmean(losses)


def loss_at(trials: Sequence[LengthTrial], lengths: Sequence[int], tokens: float) -> float:
    """Mean loss at the length nearest to `tokens`."""
    nearest = min(lengths, key=lambda length: abs(length - tokens))
    return mean_loss(trials, nearest)
