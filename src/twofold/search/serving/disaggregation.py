"""Prompts on some devices, decoding on others, of one pool or of two unlike ones."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from twofold.fleet import Pool
from twofold.perf.billing import running
from twofold.perf.queueing import decoding_alone, demand_of, prompts_alone
from twofold.perf.serving import kv_transfer_s
from twofold.search.serving.question import ServingQuestion
from twofold.search.serving.ranking import One, Ranked, asked_load, best_limits
from twofold.search.serving.space import Division
from twofold.serving_plan import PrefillPlan, ServingPlan
from twofold.workload.serve import Targets

_KEPT = 3
"""Divisions of each phase, those that carry most by the device."""
_LEAST_PROMPT_SHARE = 0.1
"""Of the time to the first token, where the transfer would take more than the rest."""
_LINK_FULL = 0.8


@dataclass(frozen=True, slots=True)
class _Phases:
    """Replicas of a pool that do one phase alone, the most by the device first."""

    prompts: list[One]
    decoding: list[One]


def split_plans(question: ServingQuestion, found: Mapping[str, list[Division]]) -> list[Ranked]:
    """The best plan of each pair of a pool for prompts and a pool for decoding. By closed form the
    rates of the phases are those of open loops, whatever the arrivals."""
    phases = {name: _phases(question, divided) for name, divided in found.items()}
    ranked = []
    for first, second in ((a, b) for a in found for b in found):
        pairs = [
            plan
            for prompts in phases[first].prompts
            for decoding in phases[second].decoding
            for plan in _pair(question, prompts, decoding)
        ]
        asked = asked_load(question)
        if pairs:
            ranked.append(min(pairs, key=lambda one: one.value(question.objective, asked)))
    return ranked


def _phases(question: ServingQuestion, found: list[Division]) -> _Phases:
    targets = question.workload.targets
    quantile = targets.attainment
    demand = demand_of(question.sample, cached=True, quantile=quantile)
    first = Targets(ttft_s=targets.ttft_s, attainment=quantile)
    rest = Targets(tpot_s=targets.tpot_s, attainment=quantile)
    prompts = [
        best_limits(question, one, prompts_alone(demand), first)
        for one in found
        if one.plan.attention_data_degree == 1
    ]
    decoding = [best_limits(question, one, decoding_alone(demand), rest) for one in found]
    return _Phases(_best(prompts), _best(decoding))


def _best(replicas: list[One]) -> list[One]:
    able = [one for one in replicas if one.carried]
    return sorted(able, key=lambda one: -one.carried / one.plan.replica_devices)[:_KEPT]


def _pair(question: ServingQuestion, prompts: One, decoding: One) -> Iterator[Ranked]:
    """The numbers of replicas that carry most, or as few as carry what is asked for."""
    fleet = question.fleet
    here, there = fleet.pool(prompts.plan.pool), fleet.pool(decoding.plan.pool)
    counts = _counts(question, prompts, decoding, here, there)
    if counts is None:
        return
    plan = _joined(prompts, decoding, *counts)
    mean_tokens = sum(one.input_tokens for one in question.sample) / len(question.sample)
    transfer_s = kv_transfer_s(question.model, fleet, plan, mean_tokens)
    shared = fleet.link_between(here.name, there.name) is not None
    links = 1 if shared else counts[0]
    carried = min(
        counts[0] * prompts.carried, counts[1] * decoding.carried, _LINK_FULL * links / transfer_s
    )
    limit_s = question.workload.targets.ttft_s
    if limit_s is not None and transfer_s > (1.0 - _LEAST_PROMPT_SHARE) * limit_s:
        return
    yield Ranked(
        plan=plan,
        carried=carried,
        life_s=prompts.life_s + transfer_s + decoding.life_s,
        running=running(here, counts[0] * prompts.plan.replica_devices, {})
        + running(there, counts[1] * decoding.plan.replica_devices, {}),
    )


def _counts(
    question: ServingQuestion, prompts: One, decoding: One, here: Pool, there: Pool
) -> tuple[int, int] | None:
    """Replicas of both phases; None where they cannot carry what is asked for."""
    asked = asked_load(question)
    size, other = prompts.plan.replica_devices, decoding.plan.replica_devices
    if question.objective != "time" and asked is not None:
        counts = math.ceil(asked / prompts.carried), math.ceil(asked / decoding.carried)
        used, more = counts[0] * size, counts[1] * other
        fits = (
            used + more <= here.num_devices
            if here is there
            else used <= here.num_devices and more <= there.num_devices
        )
        return counts if fits else None
    if here is not there:
        counts = here.num_devices // size, there.num_devices // other
        return counts if min(counts) else None
    choices = [
        (number, (here.num_devices - number * size) // other)
        for number in range(1, here.num_devices // size + 1)
    ]
    able = [one for one in choices if one[1]]
    return max(
        able,
        key=lambda one: min(one[0] * prompts.carried, one[1] * decoding.carried),
        default=None,
    )


def _joined(prompts: One, decoding: One, first: int, second: int) -> ServingPlan:
    """One plan of both: steps are limited in tokens as prompts like it, in sequences as decoding
    does."""
    one = prompts.plan
    return replace(
        decoding.plan,
        replicas=second,
        max_batched_tokens=max(one.max_batched_tokens, decoding.plan.max_num_seqs),
        prefill=PrefillPlan(
            pool=one.pool,
            replicas=first,
            tensor_degree=one.tensor_degree,
            pipeline_degree=one.pipeline_degree,
            expert_degree=one.expert_degree,
            precision=one.precision,
        ),
    )
