"""How many tokens two recipes need to reach the same loss, from published comparisons alone.

Nothing here is fitted to our own runs. All published comparisons are at 0.1 billion parameters
and more; below that the forms are extrapolated, which the intervals say. Factors multiply, and
their logs' half-widths add in quadrature.
"""

from __future__ import annotations

import math

from twofold.model import Model, num_parameters
from twofold.workload import Recipe

_WEN_SMALL = (1.3e8, 1.4)
_WEN_LARGE = (1.2e9, 1.1)
"""Parameters and Muon-class gain in tokens over a well-tuned AdamW: Wen, Hall, Ma and Liang
2025, arXiv 2509.02046, abstract and figure 3."""

_MOONSHOT = 2.0
"""Gain in compute at equal loss in scaling-law fits at 0.4 to 1.5 billion parameters: Liu et al.
2025, arXiv 2502.16982, abstract. It disagrees with Wen et al.; it is the upper edge here."""

_BLOCK_GAINS: dict[str, float] = {
    "rotary": 45.0 / 31.4,
    "qk_norm and relu2": 22.3 / 15.2,
    "untied head": 12.0 / 10.8,
    "value embeddings": 4.66 / 4.41,
    "softcap": 3.57 / 3.40,
}
"""Ratios of successive record times to one loss at 124M parameters in the nanoGPT speed-run
(modded-nanogpt, README at commit 0006a9c: records 2, 5, 8, 14 and 18). Each record changed
other things too (learning rate, padding, initialisation), so half of its log is credited, and
all or nothing of it is possible."""

_SIZE_MISMATCH = 0.05
_PER_DECADE_BELOW = 0.06
_PER_BATCH_DOUBLING = 0.10


def tokens_ratio_to_loss(
    recipe_a: Recipe, model_a: Model, recipe_b: Recipe, model_b: Model
) -> tuple[float, float, float]:
    """Tokens that `a` needs over tokens that `b` needs to reach the same loss: (value, low, high).

    Above 1, `b` learns from fewer tokens. Covers optimizer and block; data, tokeniser and
    learning rates are taken as equally well tuned. A difference in batch size or in parameters
    is not credited to either side and widens the interval instead.
    """
    parameters_a, parameters_b = num_parameters(model_a), num_parameters(model_b)
    parameters = math.sqrt(parameters_a * parameters_b)
    value, below, above = _optimizer_log_gain(recipe_a, recipe_b, parameters)
    block, block_width = _block_log_gain(model_a, model_b)
    shared = math.hypot(
        block_width,
        _PER_BATCH_DOUBLING * abs(math.log2(recipe_b.global_batch / recipe_a.global_batch)),
        _size_width(parameters_a, parameters_b),
        _PER_DECADE_BELOW * _decades_below(parameters) * (value != 0.0 or block != 0.0),
    )
    middle = value + block
    return (
        math.exp(middle),
        math.exp(middle - math.hypot(below, shared)),
        math.exp(middle + math.hypot(above, shared)),
    )


def muon_gain(parameters: float) -> float:
    """Tokens AdamW needs over tokens Muon needs, by model size.

    ln g falls linearly with ln N through Wen et al.'s two ends, and stays at 1 from where it
    reaches it: g(N) = 1.4 (N / 1.3e8)^-0.108, at least 1.
    """
    (small, gain_small), (large, gain_large) = _WEN_SMALL, _WEN_LARGE
    slope = math.log(gain_large / gain_small) / math.log(large / small)
    return max(1.0, gain_small * math.exp(slope * math.log(parameters / small)))


def _optimizer_log_gain(
    recipe_a: Recipe, recipe_b: Recipe, parameters: float
) -> tuple[float, float, float]:
    """Log gain of b's optimizer over a's with the half-widths below and above it.

    The lower edge is Wen et al.'s smallest-model gain held constant below it (no growth), or
    none where their fit gives less; the upper is Moonshot's, or as far above the middle as the
    lower edge is below where that is more.
    """
    if recipe_a.optimizer == recipe_b.optimizer:
        return 0.0, 0.0, 0.0
    middle = math.log(muon_gain(parameters))
    lower = min(math.log(_WEN_SMALL[1]), middle)
    if parameters > _WEN_SMALL[0]:
        lower = 0.0
    below = max(middle - lower, 0.05)
    above = max(math.log(_MOONSHOT) - middle, below)
    if recipe_b.optimizer == "muon":
        return middle, below, above
    return -middle, above, below


def _block_log_gain(model_a: Model, model_b: Model) -> tuple[float, float]:
    """Log gain of b's block over a's, and its half-width: half of each record's log, either way."""
    features_a, features_b = _features(model_a), _features(model_b)
    total, squares = 0.0, 0.0
    for name, ratio in _BLOCK_GAINS.items():
        step = features_b[name] - features_a[name]
        half = 0.5 * math.log(ratio)
        total += step * half
        squares += (step * half) ** 2
    return total, math.sqrt(squares)


def _features(model: Model) -> dict[str, float]:
    return {
        "rotary": float(model.position == "rotary"),
        "qk_norm and relu2": 0.5 * float(model.qk_norm) + 0.5 * float(model.activation == "relu2"),
        "untied head": float(not model.tied_embeddings),
        "value embeddings": float(model.value_embeddings > 0),
        "softcap": float(model.logit_softcap is not None),
    }


def _size_width(parameters_a: int, parameters_b: int) -> float:
    """Parameters within 5 % count as equal; beyond, the whole difference is uncertain."""
    gap = abs(math.log(parameters_b / parameters_a))
    return 0.0 if gap <= math.log1p(_SIZE_MISMATCH) else gap


def _decades_below(parameters: float) -> float:
    """How far below the smallest model of the sources, in powers of ten."""
    return max(0.0, math.log10(_WEN_SMALL[0] / parameters))
