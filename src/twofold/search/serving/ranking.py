"""Plans ranked in closed form: the rate each carries under the targets, and what it takes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from twofold.fleet import Pool
from twofold.perf.billing import Running, running
from twofold.perf.queueing import Demand, closed_rates, demand_of, most_rates, steady_states
from twofold.perf.serving import replica, serving_memory, step_parts_s
from twofold.search.objective import Objective
from twofold.search.serving.question import ServingQuestion, is_throughput
from twofold.search.serving.space import Division, limits
from twofold.serving_plan import ServingPlan
from twofold.workload.requests import Request
from twofold.workload.serve import Targets


@dataclass(frozen=True, slots=True, kw_only=True)
class One:
    """One replica, the load it carries alone, and about how long a request then takes."""

    plan: ServingPlan
    carried: float
    life_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranked:
    """A plan with all its replicas, and by closed form the load it carries within the targets:
    requests a second, or users in a closed loop. `running` is at its full load."""

    plan: ServingPlan
    carried: float
    life_s: float
    running: Running

    def value(self, objective: Objective, asked: float | None) -> float:
        """What is to be small: by time the inverse of the load; else what carries the load that is
        asked for takes by the second, or what a request takes where none is."""
        if objective == "time":
            return -self.carried
        by_second = {
            "cost": self.running.usd_per_s,
            "energy": self.running.power_w,
            "carbon": self.running.kgco2e_per_s,
        }[objective]
        if by_second is None or not self.carried:
            return math.inf
        return by_second / (self.carried if asked is None else 1.0)


def asked_load(question: ServingQuestion) -> float | None:
    """Requests a second, or users; None where the question does not say, or looks for no load."""
    arrivals = question.workload.arrivals
    if is_throughput(question.workload):
        return None
    if arrivals.kind == "closed":
        return float(arrivals.users or 1)
    if arrivals.kind == "trace":
        return trace_rate(question.sample)
    return arrivals.rate_per_s if question.rate_is_given else None


def trace_rate(requests: Sequence[Request]) -> float:
    """Requests a second of a trace."""
    length_s = requests[-1].arrival_s - requests[0].arrival_s
    return len(requests) / length_s if length_s > 0 else float(len(requests))


def rank_divisions(question: ServingQuestion, pool: Pool, found: list[Division]) -> list[Ranked]:
    """The best limits of each division with as many replicas as it takes, the best plan first."""
    demand = demand_of(question.sample, cached=True, quantile=question.workload.targets.attainment)
    ranked = []
    for division in found:
        best = best_limits(question, division, demand, question.workload.targets)
        replicas = replicas_for(question, best, pool.num_devices)
        if replicas:
            ranked.append(with_replicas(pool, best, replicas))
    asked = asked_load(question)
    return sorted(ranked, key=lambda one: one.value(question.objective, asked))


def as_it_is(question: ServingQuestion, plan: ServingPlan) -> Ranked:
    """A plan with the limits it has. A static batch lets nobody in before the one before it has
    ended: about as many may find it at work as may miss the targets."""
    targets, pool = question.workload.targets, question.fleet.pool(plan.pool)
    memory = serving_memory(question.model, question.fleet, plan)
    division = Division(plan=plan, cache_tokens=memory.num_blocks * plan.block_tokens)
    demand = demand_of(question.sample, cached=plan.prefix_caching, quantile=targets.attainment)
    own = [(plan.max_num_seqs, plan.max_batched_tokens)]
    one = best_limits(question, division, demand, targets, own)
    if plan.batching == "static":
        one = replace(one, carried=min(one.carried, (1.0 - targets.attainment) / one.life_s))
    return with_replicas(pool, one, plan.replicas)


def best_limits(
    question: ServingQuestion,
    division: Division,
    demand: Demand,
    targets: Targets,
    choices: Iterable[tuple[int, int]] | None = None,
) -> One:
    """The limits of a step with which one replica carries most, of the choices or of all; the
    smallest of equals."""
    priced = replica(question.model, question.fleet, division.plan, question.fit)
    sequences, tokens = np.array(list(choices or limits()), dtype=np.float64).T
    steady = steady_states(
        lambda steps: step_parts_s(priced, steps),
        demand,
        max_num_seqs=sequences,
        max_batched_tokens=tokens,
        cache_tokens=division.cache_tokens,
        quantile=targets.attainment,
    )
    arrivals, pool = question.workload.arrivals, question.fleet.pool(division.plan.pool)
    if is_throughput(question.workload) and arrivals.kind == "closed":
        users = (arrivals.users or 1) / (pool.num_devices // division.plan.replica_devices)
        rates, lives_s = closed_rates(steady, max(1.0, users), arrivals.think_s)
        rates = rates * min(1.0, users)
    else:
        rates, lives_s = most_rates(steady, targets)
    best = int(np.argmax(rates))
    rate, life_s = float(rates[best]), float(lives_s[best])
    in_users = arrivals.kind == "closed" and not is_throughput(question.workload)
    return One(
        plan=replace(
            division.plan,
            max_num_seqs=int(sequences[best]),
            max_batched_tokens=int(tokens[best]),
        ),
        carried=rate * (life_s + arrivals.think_s) if in_users else rate,
        life_s=life_s,
    )


def replicas_for(question: ServingQuestion, one: One, devices: int) -> int:
    """All that there is room for; but where little is wanted, as few as carry the load that is
    asked for. 0 where those do not carry it, or nothing does."""
    most = devices // one.plan.replica_devices
    asked = asked_load(question)
    if question.objective == "time" or asked is None:
        return most
    needed = math.ceil(asked / one.carried) if one.carried else most + 1
    return needed if needed <= most else 0


def with_replicas(pool: Pool, one: One, replicas: int) -> Ranked:
    plan = replace(one.plan, replicas=replicas)
    return Ranked(
        plan=plan,
        carried=replicas * one.carried,
        life_s=one.life_s,
        running=running(pool, plan.num_devices, {}),
    )
