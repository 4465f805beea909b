"""A serving plan as what a simulation needs of it: replicas, their limits, the price of a step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from twofold.fleet import Fleet
from twofold.model import Model
from twofold.perf.serving import (
    Column,
    Replica,
    Steps,
    kv_transfer_s,
    phase_plan,
    replica,
    serving_memory,
    step_parts_s,
)
from twofold.perf.serving_rates import ServingEfficiencies
from twofold.policy.batching import Limits
from twofold.serving_plan import ServingPlan

Price = Callable[[Steps], dict[str, Column]]
"""Seconds of each part of each step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """Equal replicas that do the same: all of the work, prompts alone, or decoding alone."""

    replicas: int
    limits: Limits
    price: Price


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """`entry` takes the requests and computes prompts; it decodes too unless `decode` does, to
    which keys and values of so many tokens go in `transfer_s`: one prompt at a time over each
    prefill replica's own ports, or over the one link between two pools. A request spends
    `answer_s` on its way to a step and back."""

    entry: Phase
    decode: Phase | None = None
    transfer_s: Callable[[int], float] | None = None
    shared_link: bool = False
    answer_s: float = 0.0


def deploy(
    model: Model, fleet: Fleet, plan: ServingPlan, fit: ServingEfficiencies | None = None
) -> Deployment:
    """InputError where weights or a cache do not fit."""
    priced = replica(model, fleet, plan, fit)
    decode = _phase(model, fleet, plan, priced)
    if plan.prefill is None:
        return Deployment(entry=decode, answer_s=priced.answer_s)
    first = phase_plan(plan, "prefill")
    return Deployment(
        entry=_phase(model, fleet, first, replica(model, fleet, plan, fit, phase="prefill")),
        decode=decode,
        transfer_s=lambda tokens: kv_transfer_s(model, fleet, plan, tokens),
        shared_link=fleet.link_between(plan.pool, first.pool) is not None,
    )


def _phase(model: Model, fleet: Fleet, plan: ServingPlan, priced: Replica) -> Phase:
    return Phase(
        replicas=plan.replicas,
        limits=limits_of(plan, serving_memory(model, fleet, plan).num_blocks),
        price=lambda steps: step_parts_s(priced, steps),
    )


def limits_of(plan: ServingPlan, num_blocks: int) -> Limits:
    """What a replica's scheduler keeps to."""
    return Limits(
        batching=plan.batching,
        max_num_seqs=plan.max_num_seqs,
        max_batched_tokens=plan.max_batched_tokens,
        chunked=plan.chunked_prefill,
        prefix_caching=plan.prefix_caching,
        block_tokens=plan.block_tokens,
        num_blocks=num_blocks,
    )
