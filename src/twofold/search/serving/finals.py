"""The finalists simulated: how much each carries, and how it does at the load asked for."""

from __future__ import annotations

from dataclasses import replace

from twofold.errors import InputError
from twofold.search.serving.carried import most_load
from twofold.search.serving.options import ServingOption, binding, worst_miss
from twofold.search.serving.question import ServingQuestion, is_throughput
from twofold.search.serving.ranking import Ranked, asked_load
from twofold.search.serving.trial import Tried, try_plan, try_within
from twofold.serving_plan import ServingPlan

_MOST_RESIZINGS = 4
_ALONE = 0.05
"""Requests that live at once, on the mean, where each is as good as alone."""


def judge(
    question: ServingQuestion, role: str, plan: ServingPlan, guess: float, life_s: float
) -> ServingOption:
    """InputError where the plan cannot answer a request of the workload."""
    if is_throughput(question.workload):
        tried = try_plan(question, plan, question.workload.arrivals.users or 1, life_s)
        return _option(question, role, plan, tried, tried, tried.outcome.requests_per_s)
    asked = asked_load(question)
    at_asked = None if asked is None else try_plan(question, plan, asked, life_s)
    carried, loaded = most_load(question, plan, guess or 1.0 / life_s, life_s, at_asked)
    alone = try_plan(question, plan, _ALONE / life_s, life_s) if loaded is None else None
    nearest = loaded or alone
    assert nearest is not None
    option = _option(question, role, plan, at_asked or nearest, nearest, carried)
    if alone is None:
        return option
    return replace(option, misses=worst_miss(question.workload.targets, alone))


def fewest_replicas(question: ServingQuestion, ranked: Ranked) -> Ranked:
    """As many replicas as the simulation says carry the load asked for, where the closed form was
    too bold or too shy. A plan of two phases is left as it is."""
    asked, plan = asked_load(question), ranked.plan
    if question.objective == "time" or asked is None or plan.prefill is not None:
        return ranked
    most = question.fleet.pool(plan.pool).num_devices // plan.replica_devices
    one = ranked.carried / plan.replicas
    meets = try_within(question, plan, asked, ranked.life_s) is not None
    number = plan.replicas
    for _ in range(_MOST_RESIZINGS):
        other = number - 1 if meets else number + 1
        if not 1 <= other <= most:
            break
        tried = try_within(question, replace(plan, replicas=other), asked, ranked.life_s)
        fits = tried is not None
        if meets and not fits:
            break
        number = other
        if fits and not meets:
            break
    return replace(ranked, plan=replace(plan, replicas=number), carried=number * one)


def falls_short(question: ServingQuestion, ranked: Ranked, least: float) -> bool:
    """Whether it does not carry so much, where nothing else is wanted."""
    if question.objective != "time" or is_throughput(question.workload) or not least:
        return False
    try:
        return try_within(question, ranked.plan, least, ranked.life_s) is None
    except InputError:
        return True


def _option(
    question: ServingQuestion,
    role: str,
    plan: ServingPlan,
    at_asked: Tried,
    loaded: Tried,
    carried: float,
) -> ServingOption:
    return ServingOption(
        role=role,
        plan=plan,
        estimate=replace(at_asked.simulated.estimate, outcome=at_asked.outcome),
        carried=carried,
        usd_at_carried=loaded.outcome.usd_per_million_output_tokens() if carried else None,
        meets=at_asked.meets,
        overload_fraction=at_asked.simulated.overload_fraction,
        binds=binding(question.workload.targets, loaded),
    )


def judge_if_able(
    question: ServingQuestion, role: str, plan: ServingPlan | None, guess: float, life_s: float
) -> ServingOption | None:
    """None where there is no such plan, or it cannot answer."""
    try:
        return None if plan is None else judge(question, role, plan, guess, life_s)
    except InputError:
        return None
