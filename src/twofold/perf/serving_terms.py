"""A step's time from what it holds: volumes over rates, once; then a few operations a step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from twofold.fleet import StepCurve
from twofold.perf.collectives import all_reduce_s, all_to_all_s, send_s
from twofold.perf.rates import overlapped_s
from twofold.perf.serving_rates import ServingRates
from twofold.perf.serving_work import ServingVolumes, touched_fraction

Array = NDArray[np.float64]
Column = Array | float

PARTS = (
    "weights", "products", "attention", "cache", "activations", "communication", "overhead",
)  # fmt: skip

_LONG = 1e9
"""Bytes of a message that is all bandwidth."""

PART_USE: dict[str, Literal["tensor", "memory", "link", "idle"]] = {
    "weights": "memory",
    "products": "tensor",
    "attention": "tensor",
    "cache": "memory",
    "activations": "memory",
    "communication": "link",
    "overhead": "idle",
}
"""What a device is busy with in each part, for its power."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """What steps of one replica hold: [steps], or one number where all hold the same.

    `tokens` computed (prompt and decoded), `sequences` in the step, `pairs` of a query and a key
    of prompt tokens (causal pairs, with the prompt's earlier parts), `keys` in the cache that
    decoding sequences read.
    """

    tokens: Column
    sequences: Column
    pairs: Column
    keys: Column


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTerms:
    """Seconds per unit of a micro-batch, floats or columns; names as in `ServingVolumes`."""

    group_token_s: Column
    token_s: Column
    dense_weight_s: Column
    expert_token_s: Column
    expert_weight_s: Column
    routed_fraction: Column
    head_sequence_s: Column
    head_weight_s: Column
    pair_s: Column
    window_pair_s: Column
    key_s: Column
    window_key_s: Column
    window: Column
    group_stream_s: Column
    stream_s: Column
    head_stream_s: Column
    group_message_s: Column
    message_s: Column
    message_fixed_s: Column
    fixed_s: Column
    host_sequence_s: Column
    host_token_s: Column
    stages: Column
    groups: Column
    overlap: Column


def step_terms(volumes: ServingVolumes, rates: ServingRates) -> StepTerms:
    """Divide. Messages are linear in their size, so that two evaluations give both numbers."""
    v, r = volumes, rates
    reach = {
        "group": (v.group_reduced_bytes, v.group_reduces, v.group_ranks, all_reduce_s),
        "all": (v.reduced_bytes, v.reduces, v.ranks, all_reduce_s),
        "experts": (v.expert_bytes, v.expert_calls, v.expert_ranks, all_to_all_s),
    }
    fixed_s: Column = 0.0
    slope_s: dict[str, Column] = {}
    for name, (size_bytes, number, ranks, time_s) in reach.items():
        latency_s = time_s(0.0, ranks, 1.0, r.fabric)
        slope_s[name] = size_bytes * (time_s(_LONG, ranks, 1.0, r.fabric) - latency_s) / _LONG
        fixed_s = fixed_s + number * latency_s
    hop_s = send_s(0.0, v.stages, v.ranks, r.fabric)
    sent_s = (send_s(_LONG, v.stages, v.ranks, r.fabric) - hop_s) / _LONG
    boundary_s = v.boundary_bytes / v.ranks * sent_s
    return StepTerms(
        group_token_s=(
            v.group_narrow_flop / r.narrow_flop_per_s + v.group_wide_flop / r.wide_flop_per_s
        ),
        token_s=v.narrow_flop / r.narrow_flop_per_s + v.wide_flop / r.wide_flop_per_s,
        dense_weight_s=v.dense_weight_bytes / r.bytes_per_s,
        expert_token_s=r.expert_imbalance
        * (v.expert_narrow_flop / r.narrow_flop_per_s + v.expert_wide_flop / r.wide_flop_per_s),
        expert_weight_s=v.expert_weight_bytes / r.bytes_per_s,
        routed_fraction=v.routed_fraction,
        head_sequence_s=v.head_flop / r.wide_flop_per_s,
        head_weight_s=v.head_weight_bytes / r.bytes_per_s,
        pair_s=v.pair_flop / r.attention_flop_per_s,
        window_pair_s=v.window_pair_flop / r.attention_flop_per_s,
        key_s=overlapped_s(
            np.asarray(v.key_flop / r.attention_flop_per_s),
            np.asarray(v.key_bytes / r.bytes_per_s),
            np.asarray(r.overlap),
        ),
        window_key_s=overlapped_s(
            np.asarray(v.window_key_flop / r.attention_flop_per_s),
            np.asarray(v.window_key_bytes / r.bytes_per_s),
            np.asarray(r.overlap),
        ),
        window=v.window,
        group_stream_s=r.stream * v.group_stream_bytes / r.bytes_per_s,
        stream_s=r.stream * v.stream_bytes / r.bytes_per_s,
        head_stream_s=r.stream * v.head_stream_bytes / r.bytes_per_s,
        group_message_s=slope_s["group"],
        message_s=slope_s["all"] + slope_s["experts"] * r.expert_imbalance + boundary_s,
        message_fixed_s=fixed_s + (v.stages - 1.0) * hop_s,
        fixed_s=v.calls * r.call_s + r.step_s,
        host_sequence_s=r.sequence_s,
        host_token_s=r.token_s,
        stages=v.stages,
        groups=v.groups,
        overlap=r.overlap,
    )


def curve_terms(curve: StepCurve) -> StepTerms:
    """A measured curve of the embedded engine in the same terms: its parts simply add."""
    zero = dict.fromkeys(StepTerms.__dataclass_fields__, 0.0)
    measured = {
        "token_s": curve.token_s,
        "dense_weight_s": curve.step_s,
        "pair_s": curve.pair_s,
        "key_s": curve.key_s,
        "host_sequence_s": curve.sequence_s,
        "stages": 1.0,
        "groups": 1.0,
    }
    return StepTerms(**(zero | measured))


def price_steps(terms: StepTerms, steps: Steps) -> dict[str, Column]:
    """Seconds by part; they add up to the step. A part that all steps take alike is one number.

    Of products and the weights they read the shorter is hidden but for 1 - overlap of it: what
    products add to the reading, c - w min(c, r), is theirs. With p pipeline stages a step is that
    of p micro-batches in flight, each of a p-th of the tokens through all stages: as fast as the
    full pass of one of them. An attention group has its share of the sequences, but no less than
    one whole.
    """
    t = terms
    tokens, sequences = steps.tokens / t.stages, steps.sequences / t.stages
    pairs, keys = steps.pairs / t.stages, steps.keys / t.stages
    share = 1.0 / np.minimum(np.maximum(sequences, 1.0), t.groups)
    grouped = tokens * share
    touched = touched_fraction(np.maximum(tokens, 1.0), t.routed_fraction)
    dense_s = t.group_token_s * grouped + t.token_s * tokens
    expert_s, expert_read_s = t.expert_token_s * tokens, t.expert_weight_s * touched
    head_s = t.head_sequence_s * sequences
    hidden_s = t.overlap * (
        np.minimum(dense_s, t.dense_weight_s)
        + np.minimum(expert_s, expert_read_s)
        + np.minimum(head_s, t.head_weight_s)
    )
    seen_pairs = np.minimum(pairs, tokens * t.window)
    seen_keys = np.minimum(keys, sequences * t.window)
    return {
        "weights": t.dense_weight_s + t.head_weight_s + expert_read_s,
        "products": dense_s + expert_s + head_s - hidden_s,
        "attention": (t.pair_s * pairs + t.window_pair_s * seen_pairs) * share,
        "cache": (t.key_s * keys + t.window_key_s * seen_keys) * share,
        "activations": (
            t.group_stream_s * grouped + t.stream_s * tokens + t.head_stream_s * sequences
        ),
        "communication": t.message_fixed_s + t.group_message_s * grouped + t.message_s * tokens,
        "overhead": (
            t.fixed_s + t.host_sequence_s * steps.sequences + t.host_token_s * steps.tokens
        ),
    }


def step_s(terms: StepTerms, steps: Steps) -> Array:
    """The whole step."""
    parts = price_steps(terms, steps)
    return np.asarray(sum(parts.values()))
