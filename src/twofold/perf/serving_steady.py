"""A replica under a constant load: steps, latencies and throughput that keep themselves up.

Continuous batching with prompts in chunks beside decoding sequences (Agrawal et al. 2024, arXiv
2403.02310). D sequences decode; each needs O - 1 steps of it, so that every step D / (O - 1)
requests end and as many prompts of I tokens must be computed. Little's law closes the loop:
users = D + throughput x TTFT. Everything is a column: [rows].
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from twofold.perf.serving_terms import Steps, StepTerms, step_s

Array = NDArray[np.float64]

_ROUNDS = 24
_SLOW_ROUNDS = 150
"""Near saturation one more sequence slows all others, and the loop closes slowly."""
_DAMPING = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What one replica is given: [rows]. `users` wait for an answer and ask again at once;
    `max_sequences` fit at a time, `budget_tokens` go into a step. `waves` is the share of the users
    whose prompts come together (a benchmark that starts all of them at once), `wait_steps` how
    many steps pass before a request's first is scheduled, `host_s` what it spends on the way.
    """

    users: Array
    input_tokens: Array
    output_tokens: Array
    max_sequences: Array
    budget_tokens: Array
    waves: Array
    wait_steps: Array
    host_s: Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Steady:
    """`decoding` sequences on the mean; times in s; `requests_per_s` of one replica."""

    ttft_s: Array
    tpot_s: Array
    requests_per_s: Array
    decoding: Array

    def output_tokens_per_s(self, output_tokens: Array) -> Array:
        return self.requests_per_s * output_tokens


def aggregated(terms: StepTerms, load: Load) -> Steady:
    """Prompts and decoding on the same devices."""
    later = np.maximum(load.output_tokens - 1.0, 1.0)
    most = np.minimum(load.users, load.max_sequences)
    decoding = np.maximum(most * 0.9, 1e-3)
    ratio = load.input_tokens / later
    most_decoding = np.minimum(most, load.budget_tokens / (1.0 + ratio))
    for _ in range(_ROUNDS):
        mean_s, first_s = _mixed(terms, load, decoding)
        share = 1.0 / (1.0 + first_s / (mean_s * later))
        wanted = np.minimum(most * share, most_decoding)
        decoding = _DAMPING * decoding + (1.0 - _DAMPING) * wanted
    mean_s, first_s = _mixed(terms, load, decoding)
    rate = decoding / (mean_s * later)
    queued_s = (load.users - decoding) / rate
    ttft_s = np.maximum(first_s, queued_s)
    return Steady(ttft_s=ttft_s, tpot_s=mean_s, requests_per_s=rate, decoding=decoding)


def _mixed(terms: StepTerms, load: Load, decoding: Array) -> tuple[Array, Array]:
    """The mean step, and the time to first token of who finds it so. Prompts that wait in a wave
    fill whole steps."""
    later = np.maximum(load.output_tokens - 1.0, 1.0)
    room = np.maximum(load.budget_tokens - decoding, 1.0)
    per_step = decoding * load.input_tokens / later
    chunks = np.ceil(load.input_tokens / room)
    chunk = np.maximum(load.input_tokens / chunks, np.minimum(per_step, room))
    often = np.clip(per_step / chunk, 0.0, 1.0)
    keys = decoding * (load.input_tokens + load.output_tokens / 2.0)
    plain_s = step_s(
        terms, Steps(tokens=decoding, sequences=decoding, pairs=0.0 * decoding, keys=keys)
    )
    with_prompt_s = step_s(
        terms,
        Steps(
            tokens=decoding + chunk,
            sequences=decoding + np.maximum(chunk / load.input_tokens, 1.0),
            pairs=chunk * load.input_tokens / 2.0,
            keys=keys,
        ),
    )
    mean_s = plain_s + often * (with_prompt_s - plain_s)
    full_s = step_s(
        terms,
        Steps(
            tokens=decoding + room,
            sequences=decoding + np.maximum(room / load.input_tokens, 1.0),
            pairs=room * load.input_tokens / 2.0,
            keys=keys,
        ),
    )
    ahead = load.waves * (load.users - 1.0) / 2.0
    ahead_s = ahead * load.input_tokens / room * (full_s - plain_s)
    first_s = load.host_s + load.wait_steps * mean_s + chunks * with_prompt_s + ahead_s
    return mean_s, first_s


def disaggregated(
    prefill: StepTerms,
    decode: StepTerms,
    load: Load,
    prefill_replicas: Array,
    decode_replicas: Array,
    transfer_s: Array,
) -> Steady:
    """Prompts elsewhere: `load` is that of all replicas together. Each prefill replica computes a
    prompt for each of its attention groups at a time, sends keys and values, and decoding follows.

    Who comes while all are busy waits, so that in the closed loop the slower phase sets the pace.
    """
    later = np.maximum(load.output_tokens - 1.0, 1.0)
    alone_s = prompt_time_s(prefill, load, np.ones_like(load.users))
    together_s = prompt_time_s(prefill, load, prefill.groups * np.ones_like(load.users))
    most = np.minimum(load.users, load.max_sequences * decode_replicas)
    decoding = np.maximum(most * 0.9, 1e-3)
    prefill_most = prefill_replicas * prefill.groups / together_s
    for _ in range(_ROUNDS):
        each_s = _decode_s(decode, load, decoding / decode_replicas)
        busy = np.clip(decoding / (each_s * later) / prefill_most, 0.0, 0.95)
        prompt_s = alone_s + busy * (together_s - alone_s)
        first_s = _handed_first_s(load, prompt_s, each_s, busy, prefill_most, transfer_s)
        share = 1.0 / (1.0 + first_s / (each_s * later))
        wanted = np.minimum(most * share, prefill_most * each_s * later)
        decoding = _DAMPING * decoding + (1.0 - _DAMPING) * wanted
    each_s = _decode_s(decode, load, decoding / decode_replicas)
    rate = decoding / (each_s * later)
    busy = np.clip(rate / prefill_most, 0.0, 0.95)
    prompt_s = alone_s + busy * (together_s - alone_s)
    first_s = _handed_first_s(load, prompt_s, each_s, busy, prefill_most, transfer_s)
    queued_s = (load.users - decoding) / rate
    return Steady(
        ttft_s=np.maximum(first_s, queued_s),
        tpot_s=each_s,
        requests_per_s=rate,
        decoding=decoding,
    )


def prompt_time_s(terms: StepTerms, load: Load, prompts: Array) -> Array:
    """So many prompts together and nothing else, in as many steps as the budget asks for."""
    tokens = prompts * load.input_tokens
    chunks = np.ceil(tokens / load.budget_tokens)
    alone = step_s(
        terms,
        Steps(
            tokens=tokens / chunks,
            sequences=prompts,
            pairs=tokens / chunks * load.input_tokens / 2.0,
            keys=0.0 * tokens,
        ),
    )
    return np.asarray(chunks * alone)


def _decode_s(terms: StepTerms, load: Load, decoding: Array) -> Array:
    keys = decoding * (load.input_tokens + load.output_tokens / 2.0)
    return step_s(
        terms, Steps(tokens=decoding, sequences=decoding, pairs=0.0 * decoding, keys=keys)
    )


def _handed_first_s(
    load: Load, prompt_s: Array, each_s: Array, busy: Array, most_per_s: Array, transfer_s: Array
) -> Array:
    """Wait for a prefill replica (half of Sakasegawa's M/M/c wait, since prompts are alike; INFORMS
    1977), the prompt, the transfer, and the step in which the first token is passed on."""
    servers = np.maximum(most_per_s * prompt_s, 1.0)
    wait_s = busy ** (np.sqrt(2.0 * (servers + 1.0)) - 1.0) / (1.0 - busy) / most_per_s
    ahead_s = load.waves * (load.users - 1.0) / 2.0 / most_per_s
    return np.asarray(
        load.host_s + 0.5 * wait_s + prompt_s + transfer_s + load.wait_steps * each_s + ahead_s
    )


def at_rate(terms: StepTerms, load: Load, requests_per_s: Array) -> Steady:
    """Open loop: so many requests come a second whatever becomes of earlier ones; `users` is not
    read. Where more come than can be served, as many are served as fit, and waiting has no end."""
    later = np.maximum(load.output_tokens - 1.0, 1.0)
    ratio = load.input_tokens / later
    most = np.minimum(load.max_sequences, load.budget_tokens / (1.0 + ratio))
    decoding = np.minimum(most, 1.0)
    for _ in range(_SLOW_ROUNDS):
        mean_s, _ = _mixed(terms, load, np.maximum(decoding, 1e-3))
        wanted = np.minimum(requests_per_s * later * mean_s, most)
        decoding = _DAMPING * decoding + (1.0 - _DAMPING) * wanted
    mean_s, first_s = _mixed(terms, load, np.maximum(decoding, 1e-3))
    rate = decoding / (mean_s * later)
    ttft_s = np.where(rate < 0.98 * requests_per_s, np.inf, first_s)
    return Steady(ttft_s=ttft_s, tpot_s=mean_s, requests_per_s=rate, decoding=decoding)


def static_batch(terms: StepTerms, load: Load) -> Steady:
    """All users' prompts together, then their tokens together, then the next batch."""
    prompts_s = prompt_time_s(terms, load, load.users)
    each_s = _decode_s(terms, load, load.users)
    batch_s = prompts_s + np.maximum(load.output_tokens - 1.0, 0.0) * each_s
    return Steady(
        ttft_s=load.host_s + prompts_s,
        tpot_s=each_s,
        requests_per_s=load.users / batch_s,
        decoding=load.users,
    )
