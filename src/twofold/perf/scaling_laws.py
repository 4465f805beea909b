"""Tokens to a loss for dense and mixture-of-experts models, by published scaling laws.

All laws here have one form, L = c + a N^-alpha + b D^-beta with N active parameters and D
training tokens; experts change a, alpha, b and beta. They were fitted on models far smaller than
those planned with them (up to 2.7 billion active parameters where experts are involved), on one
data set and tokeniser each: losses of different laws do not compare, and only ratios at equal
loss within one law are used. `learning` compares recipes; this compares shapes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Column = Array | float


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerLaw:
    """L(N, D) = c + a N^-alpha + b D^-beta, coefficients scalar or a column each."""

    c: Column
    a: Column
    alpha: Column
    b: Column
    beta: Column

    def loss(self, active_parameters: Column, tokens: Column) -> Array:
        size = self.a * np.power(active_parameters, -np.asarray(self.alpha))
        return np.asarray(self.c + size + self.b * np.power(tokens, -np.asarray(self.beta)))

    def tokens_to_loss(self, active_parameters: Column, loss: Column) -> Array:
        """D = (b / (L - c - a N^-alpha))^(1/beta); infinite where N parameters never reach L."""
        size = self.a * np.power(active_parameters, -np.asarray(self.alpha))
        left = np.asarray(loss - self.c - size)
        with np.errstate(over="ignore"):
            tokens = np.power(self.b / np.where(left > 0, left, 1.0), 1.0 / np.asarray(self.beta))
        return np.where(left > 0, tokens, np.inf)

    def optimal_shape(self, flop: Column) -> tuple[Array, Array]:
        """N and D of least loss for C = 6 N D: N = G (C/6)^(beta / (alpha + beta)) with
        G = (alpha a / (beta b))^(1 / (alpha + beta)) (Hoffmann et al. 2022, eq. 4)."""
        both = np.asarray(self.alpha) + self.beta
        g = np.power(self.alpha * np.asarray(self.a) / (self.beta * np.asarray(self.b)), 1.0 / both)
        parameters = g * np.power(np.asarray(flop) / 6.0, self.beta / both)
        return np.asarray(parameters), np.asarray(flop / (6.0 * parameters))

    def least_flop(self, loss: Column) -> Array:
        """C = 6 N D at the best shape: a N^-alpha = (L - c) beta / (alpha + beta), and D alike.

        Infinite at or below the irreducible loss c.
        """
        both = np.asarray(self.alpha) + self.beta
        left = np.asarray(loss - self.c)
        reachable = np.where(left > 0, left, 1.0)
        parameters = np.power(self.a * both / (reachable * self.beta), 1.0 / np.asarray(self.alpha))
        tokens = np.power(self.b * both / (reachable * self.alpha), 1.0 / np.asarray(self.beta))
        return np.where(left > 0, 6.0 * parameters * tokens, np.inf)


DENSE = PowerLaw(c=1.8172, a=482.01, alpha=0.3478, b=2085.43, beta=0.3658)
"""Besiroglu, Erdil, Barnett and You 2024, arXiv 2404.10102: Hoffmann et al.'s third approach
fitted again to their runs, 70 million to 16 billion parameters, 5 to 500 billion tokens."""

DENSE_AS_PUBLISHED = PowerLaw(c=1.69, a=406.4, alpha=0.34, b=410.7, beta=0.28)
"""Hoffmann et al. 2022, arXiv 2203.15556, section 3.3, as rounded there. Kept to show the
difference: the optimizer had stopped early, and the rounding alone moves the optimum."""

_E_START, _E_MAX = 2.0732, 290.4521
_A, _ALPHA, _DELTA, _GAMMA = 35.91, -0.1889, -0.2285, 0.0098
_B, _BETA, _OMEGA, _ZETA = 35.98, -0.1775, 0.5529, -0.0259
_C = 1.3637


def joint_law(experts: Column) -> PowerLaw:
    """L = a e^delta N^(alpha + gamma ln e) + b e^omega D^(beta + zeta ln e) + c, with e from
    1/e = 1/(E - 1 + 1/(1/E_start - 1/E_max)) + 1/E_max.

    Ludziejewski et al. 2025, arXiv 2502.05172, equations 6 and 7 and its table of coefficients:
    over 280 runs, 1 to 32 experts of which one is active, up to 2.7 billion active parameters.
    Above 13 billion of them it gives experts no more benefit from size: do not believe that.
    """
    start = 1.0 / (1.0 / _E_START - 1.0 / _E_MAX)
    saturated = 1.0 / (1.0 / (np.asarray(experts, dtype=np.float64) - 1.0 + start) + 1.0 / _E_MAX)
    log = np.log(saturated)
    return PowerLaw(
        c=_C,
        a=_A * np.exp(_DELTA * log),
        alpha=-(_ALPHA + _GAMMA * log),
        b=_B * np.exp(_OMEGA * log),
        beta=-(_BETA + _ZETA * log),
    )


def expansion(num_experts: Column, top_k: Column, num_shared: Column = 0.0) -> Array:
    """E = (experts + shared) / (top_k + shared): the joint law's count for fine-grained experts,
    by equal ratio of total to active expert parameters. 1 for a dense model. That finer experts
    learn better (granularity 8 to 12, arXiv 2507.17702) is not credited."""
    ratio = (num_experts + num_shared) / np.maximum(top_k + num_shared, 1.0)
    return np.asarray(np.maximum(ratio, 1.0))


def loss(active_parameters: Column, tokens: Column, experts: Column = 1.0) -> Array:
    """Training loss (nats per token) by the joint law; a dense model has one expert."""
    return joint_law(experts).loss(active_parameters, tokens)


def tokens_to_loss(active_parameters: Column, experts: Column, loss: Column) -> Array:
    """Tokens after which the joint law reaches `loss`; infinite where it never does."""
    return joint_law(experts).tokens_to_loss(active_parameters, loss)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A model as the laws see it: parameters active per token, and `expansion`."""

    active_parameters: float
    experts: float = 1.0


_FITTED_PARAMETERS = (7e7, 2.7e9)
_FITTED_TOKENS = (5e9, 5e11)
_FITTED_EXPERTS = (1.0, 32.0)
"""The joint law's upper ends where known, else those of the dense law's runs."""

_SIZE_DOUBT = 0.1
_EXPERTS_DOUBT = 0.5
"""Of the log of the ratio. Published gains from experts at equal loss go from 2x (OLMoE, arXiv
2409.02060) to 7x in compute (arXiv 2507.17702) where this law says 3 to 4."""
_PER_DECADE = 0.2
"""Assumed: half-width in log tokens for each power of ten outside the fitted range."""
_WIDEST = 100.0


def tokens_at_equal_loss(
    reference: Shape, reference_tokens: float, candidate: Shape
) -> tuple[float, float, float]:
    """Tokens with which `candidate` reaches the loss of `reference` after its: (value, low, high).

    The joint law's ratio in two legs, one of size and one of experts. The half-widths of its
    log: where the dense law disagrees on the leg of size (a tenth of it at least), half of the
    leg of experts, and 0.2 a decade outside the fitted range, in quadrature. Equal shapes need
    equal tokens, for certain. Infinite where the loss is out of the candidate's reach; `low` then
    says whether the dense law thinks so too.
    """
    if reference == candidate:
        return reference_tokens, reference_tokens, reference_tokens
    target = float(loss(reference.active_parameters, reference_tokens, reference.experts))
    value = _tokens(candidate, target)
    more = candidate.experts >= reference.experts
    middle = Shape(
        active_parameters=(reference if more else candidate).active_parameters,
        experts=max(candidate.experts, reference.experts),
    )
    at_middle = _tokens(middle, target)
    start, first = (at_middle, value) if more else (reference_tokens, at_middle)
    if not math.isfinite(at_middle):
        start, first = reference_tokens, value
    dense = _dense_leg(reference.active_parameters, start, candidate.active_parameters)
    if not math.isfinite(value):
        low = reference_tokens * math.exp(dense) if math.isfinite(dense) else math.inf
        return math.inf, low, math.inf
    size = math.log(first / start)
    experts = math.log(value / reference_tokens) - size
    width = math.hypot(
        max(_SIZE_DOUBT * abs(size), abs(size - dense) if math.isfinite(dense) else abs(size)),
        _EXPERTS_DOUBT * experts,
        _PER_DECADE * max(decades_outside(reference, reference_tokens),
                          decades_outside(candidate, value)),
    )  # fmt: skip
    width = min(width, _WIDEST)
    high = value * math.exp(width) if math.isfinite(dense) else math.inf
    return value, value * math.exp(-width), high


def decades_outside(shape: Shape, tokens: float) -> float:
    """How far a run is outside what the laws were fitted on, in powers of ten, all axes summed."""
    return sum(
        max(0.0, math.log10(low / x), math.log10(x / high))
        for x, (low, high) in (
            (shape.active_parameters, _FITTED_PARAMETERS),
            (tokens, _FITTED_TOKENS),
            (shape.experts, _FITTED_EXPERTS),
        )
    )


def _tokens(shape: Shape, target: float) -> float:
    return float(tokens_to_loss(shape.active_parameters, shape.experts, target))


def _dense_leg(parameters: float, tokens: float, to_parameters: float) -> float:
    """ln of the tokens' ratio by the dense law, when only the parameters change."""
    if not math.isfinite(tokens):
        return math.inf
    reached = float(DENSE.loss(parameters, tokens))
    return math.log(float(DENSE.tokens_to_loss(to_parameters, reached)) / tokens)
