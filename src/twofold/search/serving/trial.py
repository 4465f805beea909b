"""Plans tried in simulation at a load."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from twofold.search.factors import divisors
from twofold.search.serving.question import ServingQuestion
from twofold.search.serving.ranking import trace_rate
from twofold.serving_outcome import ServingOutcome
from twofold.serving_plan import ServingPlan
from twofold.simulate import Simulated, simulate_plan, simulate_within
from twofold.workload.requests import Request, draw_requests
from twofold.workload.serve import Serve

_FEWEST, _MOST, _MOST_EACH = 600, 1200, 600
"""Requests judged: enough for a percentile, few enough to try many plans, fewer yet at each of
the loads that are tried for one."""
_LIVES = 6.0
"""Mean lives of a request that arrivals last at least, so that the start weighs little."""
_MOST_REPLICAS = 8
"""Simulated; more of them are copies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """A plan simulated at a load (so many users, where they wait), all its replicas counted."""

    load: float
    simulated: Simulated
    outcome: ServingOutcome
    meets: bool


def try_plan(question: ServingQuestion, plan: ServingPlan, load: float, life_s: float) -> Tried:
    """At so many requests a second, or users. `life_s` is about how long a request takes."""
    part, copies = _part_of(plan)
    load = whole_load(question, plan, load)
    workload, requests = loaded(question, load / copies, life_s, _MOST)
    simulated = simulate_plan(
        question.model, question.fleet, part, workload, requests=requests, fit=question.fit
    )
    return _tried(question, load, copies, simulated)


def try_within(
    question: ServingQuestion, plan: ServingPlan, load: float, life_s: float
) -> Tried | None:
    """None where it does not keep the targets, which often shows long before the end."""
    part, copies = _part_of(plan)
    load = whole_load(question, plan, load)
    workload, requests = loaded(question, load / copies, life_s, _MOST_EACH)
    simulated = simulate_within(
        question.model, question.fleet, part, workload, requests, question.fit
    )
    tried = None if simulated is None else _tried(question, load, copies, simulated)
    return tried if tried is not None and tried.meets else None


def _tried(question: ServingQuestion, load: float, copies: int, simulated: Simulated) -> Tried:
    attained = simulated.estimate.outcome.attained_fraction
    return Tried(
        load=load,
        simulated=simulated,
        outcome=scaled(simulated.estimate.outcome, copies),
        meets=not simulated.overload_fraction
        and (attained is None or attained >= question.workload.targets.attainment),
    )


def whole_load(question: ServingQuestion, plan: ServingPlan, load: float) -> float:
    """The nearest load that can be simulated: users are whole, and as many at each like part."""
    if question.workload.arrivals.kind != "closed":
        return load
    copies = _part_of(plan)[1]
    return float(copies * max(1, round(load / copies)))


def loaded(
    question: ServingQuestion, load: float, life_s: float, most: int
) -> tuple[Serve, Sequence[Request]]:
    """The workload at that load with its requests: those of a trace closer together or further
    apart, those of a closed loop or at a rate enough of them for a steady state. All loads have
    the same requests, more or fewer of them: else chance would decide between two loads."""
    workload, arrivals = question.workload, question.workload.arrivals
    if arrivals.kind == "trace":
        faster = load / trace_rate(question.sample)
        return workload, [replace(one, arrival_s=one.arrival_s / faster) for one in question.sample]
    if arrivals.kind == "offline":
        number = max(_FEWEST, min(most, workload.num_requests))
        workload = replace(workload, num_requests=number)
    elif arrivals.kind == "closed":
        users = max(1, round(load))
        workload = replace(
            workload,
            arrivals=replace(arrivals, users=users),
            warmup_requests=users,
            num_requests=max(_FEWEST, min(most, round(_LIVES * users)), users),
        )
    else:
        alive = load * life_s
        workload = replace(
            workload,
            arrivals=replace(arrivals, rate_per_s=load),
            warmup_requests=min(most, math.ceil(2.0 * alive)),
            num_requests=max(_FEWEST, min(most, math.ceil(_LIVES * alive))),
        )
    number = workload.warmup_requests + workload.num_requests
    same = replace(workload, warmup_requests=0, num_requests=max(number, 2 * _MOST))
    return workload, draw_requests(same, question.seed)[:number]


def scaled(outcome: ServingOutcome, copies: int) -> ServingOutcome:
    """Of so many like parts of a fleet, each with its share of the requests."""
    if copies == 1:
        return outcome

    def times(value: float | None) -> float | None:
        return None if value is None else value * copies

    return replace(
        outcome,
        num_requests=outcome.num_requests * copies,
        input_tokens=outcome.input_tokens * copies,
        output_tokens=outcome.output_tokens * copies,
        goodput_per_s=times(outcome.goodput_per_s),
        num_preemptions=outcome.num_preemptions * copies,
        energy_j=times(outcome.energy_j),
        cost_usd=times(outcome.cost_usd),
        carbon_kgco2e=times(outcome.carbon_kgco2e),
    )


def _part_of(plan: ServingPlan) -> tuple[ServingPlan, int]:
    """A part with at most so many replicas of which the plan is copies."""
    counts = [plan.replicas, plan.prefill.replicas if plan.prefill else plan.replicas]
    copies = min(
        divisor
        for divisor in divisors(math.gcd(*counts))
        if plan.replicas // divisor <= _MOST_REPLICAS or divisor == math.gcd(*counts)
    )
    prefill = plan.prefill
    if prefill is not None:
        prefill = replace(prefill, replicas=prefill.replicas // copies)
    return replace(plan, replicas=plan.replicas // copies, prefill=prefill), copies
