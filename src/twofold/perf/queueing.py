"""Serving at a steady rate, in closed form: what a search ranks by before it simulates.

All of a step is linear in x, the requests that come during a step: in the steady state steps hold
x I prompt tokens on the mean and x (O - 1) decoding sequences, for I tokens in and O out. So a
step takes F(x), and x runs through all rates r = x / F(x) at once: no fixed point is sought.
A request sees the others and itself (arrivals see time averages), waits for prompts before it
as in M/G/1 (Pollaczek-Khinchine), and for a place among c as in M/M/c (Sakasegawa 1977).
Good for ranking at moderate loads; the simulation judges.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from twofold.perf.serving import Column, Steps
from twofold.workload.requests import Request
from twofold.workload.serve import Targets

Array = NDArray[np.float64]
Price = Callable[[Steps], dict[str, Column]]

_POINTS = 48
_LOWEST, _FULLEST = 1e-3, 0.995
"""The loads looked at, as shares of what the places allow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """Of a request on the mean: prompt tokens to compute, query-key pairs of them, decode steps,
    keys that one of them reads (also what a running sequence holds). `prompt_square` is the mean
    square of the prompt, `prompt_high` and `steps_low` are quantiles (see `demand_of`)."""

    prompt: float
    prompt_square: float
    prompt_high: float
    pairs: float
    pairs_high: float
    steps: float
    steps_low: float
    steps_high: float
    keys: float


def demand_of(requests: Sequence[Request], *, cached: bool, quantile: float) -> Demand:
    """Of requests whose shared beginnings are found in the cache if `cached`. The quantile is that
    of the prompts from below and of the decode steps from either side."""
    inputs = np.array([request.input_tokens for request in requests], dtype=np.float64)
    shared = np.array([request.prefix_tokens for request in requests], dtype=np.float64)
    steps = np.array([request.output_tokens for request in requests], dtype=np.float64) - 1.0
    known = np.minimum(shared, inputs - 1.0) if cached else np.zeros_like(inputs)
    prompt = inputs - known
    pairs = prompt * known + prompt * (prompt + 1.0) / 2.0
    decoded = max(float(steps.sum()), 1.0)
    return Demand(
        prompt=float(prompt.mean()),
        prompt_square=float(np.mean(prompt**2)),
        prompt_high=float(np.quantile(prompt, quantile)),
        pairs=float(pairs.mean()),
        pairs_high=float(np.quantile(pairs, quantile)),
        steps=float(steps.mean()),
        steps_low=max(float(np.quantile(steps, 0.5)), 1.0),
        steps_high=float(np.quantile(steps, quantile)),
        keys=float(np.sum(steps * (inputs + (steps + 1.0) / 2.0))) / decoded,
    )


def prompts_alone(demand: Demand) -> Demand:
    """What is left for machines that only compute prompts."""
    return replace(demand, steps=0.0, steps_low=1.0, steps_high=0.0)


def decoding_alone(demand: Demand) -> Demand:
    """What is left for machines that only decode."""
    return replace(
        demand, prompt=0.0, prompt_square=0.0, prompt_high=0.0, pairs=0.0, pairs_high=0.0
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Steady:
    """Rising loads of one replica under each choice of limits, [limits, loads]: requests a second,
    sequences that decode, and times on the mean and at the quantile. `places`, [limits, 1], are
    the sequences that limits and cache allow."""

    rate_per_s: Array
    running: Array
    step_s: Array
    ttft_s: Array
    ttft_high_s: Array
    tpot_s: Array
    tpot_high_s: Array
    e2e_s: Array
    e2e_high_s: Array
    places: Array


def steady_states(
    price: Price,
    demand: Demand,
    *,
    max_num_seqs: Array,
    max_batched_tokens: Array,
    cache_tokens: float,
    quantile: float,
) -> Steady:
    """All loads that one replica can bear, for each of the limits [limits]."""
    d = demand
    held = cache_tokens / max(d.keys, 1.0)
    tokens = max_batched_tokens[:, None]
    places = np.maximum(1.0, np.minimum(np.minimum(max_num_seqs, held), 0.9 * max_batched_tokens))
    places = places[:, None]
    most = places / d.steps if d.steps else tokens / d.prompt
    x = most * np.geomspace(_LOWEST, _FULLEST, _POINTS)
    running = x * d.steps
    decoding = running + (1.0 if d.steps else 0.0)
    budget = np.maximum(tokens - running, 1.0)
    price_one = _Priced(price, d.keys)
    step_s = _mixed_s(price_one, decoding, x, d)
    rate = x / step_s
    bare_s = price_one(running, 0.0, 0.0, 0.0)
    own_s = _own_s(price_one, running, budget, d.prompt, d.pairs)
    own_high_s = _own_s(price_one, running, budget, d.prompt_high, d.pairs_high)
    full_s = price_one(running, 1.0, budget, budget * d.pairs / max(d.prompt, 1.0))
    added_s = np.maximum(own_s - bare_s, 0.0)
    added_square = added_s**2 * d.prompt_square / max(d.prompt, 1.0) ** 2
    used = np.minimum(rate * d.prompt * full_s / budget, 0.999)
    prompt_wait_s = rate * added_square / (2.0 * (1.0 - used))
    tail = -np.log(1.0 - quantile)
    life_s = own_s + d.steps * step_s
    place_wait_s = _place_wait_s(running / places, places, life_s) if d.steps else 0.0 * x
    wait_s = prompt_wait_s + place_wait_s
    ttft_s = bare_s / 2.0 + wait_s + own_s
    ttft_high_s = ttft_s + np.hypot(own_high_s - own_s, np.hypot(wait_s * tail, bare_s / 2.0))
    tpot_s = step_s
    grown_s = _mixed_s(price_one, decoding + np.sqrt(running), x, d) - step_s
    landed_s = np.sqrt(rate * step_s * added_square / d.steps_low)
    tpot_high_s = tpot_s + NormalDist().inv_cdf(quantile) * np.hypot(grown_s, landed_s)
    return Steady(
        rate_per_s=rate,
        running=running,
        step_s=step_s,
        ttft_s=ttft_s,
        ttft_high_s=ttft_high_s,
        tpot_s=tpot_s,
        tpot_high_s=tpot_high_s,
        e2e_s=ttft_s + d.steps * tpot_s,
        e2e_high_s=ttft_high_s + d.steps_high * tpot_s,
        places=places,
    )


def most_rates(steady: Steady, targets: Targets) -> tuple[Array, Array]:
    """The highest rate up to which all targets are met under each of the limits, 0 where the
    lightest load misses one; and how long a request then takes."""
    over = np.zeros_like(steady.rate_per_s)
    for value_s, limit_s in (
        (steady.ttft_high_s, targets.ttft_s),
        (steady.tpot_high_s, targets.tpot_s),
        (steady.e2e_high_s, targets.e2e_s),
    ):
        if limit_s is not None:
            over = np.maximum(over, value_s / limit_s)
    rows = np.arange(len(over))
    missed = over > 1.0
    first = np.where(missed.any(axis=1), missed.argmax(axis=1), over.shape[1])
    below = np.maximum(first - 1, 0)
    above = np.minimum(first, over.shape[1] - 1)
    rise = np.maximum(over[rows, above] - over[rows, below], 1e-12)
    share = np.where(above > below, np.clip((1.0 - over[rows, below]) / rise, 0.0, 1.0), 0.0)
    low, high = steady.rate_per_s[rows, below], steady.rate_per_s[rows, above]
    rate = np.where(first == 0, 0.0, low + share * (high - low))
    return rate, steady.e2e_s[rows, below]


def closed_rates(steady: Steady, users: float, think_s: float) -> tuple[Array, Array]:
    """Requests a second of so many users on one replica who each wait for the answer and then
    think, under each of the limits, and how long a request takes: N = r (life + think)."""
    alive = steady.rate_per_s * (steady.e2e_s + think_s)
    rates = np.array(
        [np.interp(users, n, rate) for n, rate in zip(alive, steady.rate_per_s, strict=True)]
    )
    return rates, users / rates - think_s


@dataclass(frozen=True, slots=True)
class _Priced:
    """Time of a step that decodes so many sequences and ends so many prompts."""

    price: Price
    keys: float

    def __call__(
        self, decoding: Array, prompts: Array | float, tokens: Array | float, pairs: Array | float
    ) -> Array:
        zero = np.zeros_like(decoding)
        parts = self.price(
            Steps(
                tokens=decoding + tokens,
                sequences=decoding + prompts,
                pairs=zero + pairs,
                keys=decoding * self.keys,
            )
        )
        return np.asarray(sum(parts.values()))


def _mixed_s(price: _Priced, decoding: Array, x: Array, demand: Demand) -> Array:
    """The mean step where x requests come in one: those without a prompt, a share of exp(-x), and
    those with one or several. Time is convex in tokens, so that a mean step would be too short."""
    some = -np.expm1(-x)
    bare_s = price(decoding, 0.0, 0.0, 0.0)
    if not demand.prompt:
        return bare_s
    prompts = x / some
    full_s = price(decoding, prompts, prompts * demand.prompt, prompts * demand.pairs)
    return np.asarray((1.0 - some) * bare_s + some * full_s)


def _own_s(price: _Priced, running: Array, budget: Array, prompt: float, pairs: float) -> Array:
    """The steps that a prompt of one's own takes, beside those who decode."""
    chunks = np.maximum(np.ceil(prompt / budget), 1.0)
    return chunks * price(running, 1.0, prompt / chunks, pairs / chunks)


def _place_wait_s(load: Array, places: Array, life_s: Array) -> Array:
    """W = S / c  u^(sqrt(2 (c + 1)) - 1) / (1 - u): M/M/c (Sakasegawa 1977)."""
    return np.asarray(
        life_s / places * load ** (np.sqrt(2.0 * (places + 1.0)) - 1.0) / (1.0 - load)
    )
