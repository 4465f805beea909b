"""The answer: best plans, what others would run, and what was looked at."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from twofold.errors import NegativeAnswer
from twofold.search.serving.baselines import newcomer, sensible
from twofold.search.serving.disaggregation import split_plans
from twofold.search.serving.finals import fewest_replicas, judge_if_able
from twofold.search.serving.options import ServingOption
from twofold.search.serving.question import ServingQuestion
from twofold.search.serving.ranking import Ranked, asked_load, rank_divisions
from twofold.search.serving.space import Division, divisions, limits

Progress = Callable[[int, int], None]

_ROLES = ("best", "second", "third")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingAnswer:
    """The best plans, best first, and the baselines that fit. `asked` is the load that was asked
    for; the best plan carries it unless `is_no`."""

    best: list[ServingOption]
    baselines: list[ServingOption]
    asked: float | None
    num_considered: int
    num_fitting: int
    rejected: dict[str, int]

    @property
    def is_no(self) -> bool:
        return not self.best[0].meets

    def baseline(self, role: str) -> ServingOption | None:
        return next((one for one in self.baselines if one.role == role), None)

    def as_mapping(self) -> dict[str, Any]:
        return {
            "best": [one.as_mapping() for one in self.best],
            "baselines": [one.as_mapping() for one in self.baselines],
            "asked": self.asked,
            "met": not self.is_no,
            "num_considered": self.num_considered,
            "num_fitting": self.num_fitting,
            "rejected": self.rejected,
        }


def answer(
    question: ServingQuestion, progress: Progress = lambda done, total: None
) -> ServingAnswer:
    """Rank all plans in closed form, simulate the best and the baselines. NegativeAnswer where
    nothing holds the model."""
    found = {pool.name: divisions(question, pool) for pool in question.fleet.pools}
    rejected: Counter[str] = Counter()
    for one in found.values():
        rejected.update(one.rejected)
    fitting = {name: one.fitting for name, one in found.items()}
    if not any(fitting.values()):
        raise _nothing_fits(question, rejected)
    finalists = _finalists(question, fitting)
    if not finalists:
        finalists = _finalists(replace(question, objective="time"), fitting)
    bases = [
        (role, plan)
        for role, make in (("newcomer", newcomer), ("sensible", sensible))
        for pool in question.fleet.pools
        if (plan := make(question, pool)) is not None
    ]
    total = len(finalists) + len(bases)
    judged: list[ServingOption | None] = []
    baselines: list[ServingOption | None] = []
    for done, ranked in enumerate(finalists):
        progress(done, total)
        sized = fewest_replicas(question, ranked)
        judged.append(judge_if_able(question, "best", sized.plan, sized.carried, sized.life_s))
    guess, life_s = finalists[0].carried / 2.0, finalists[0].life_s
    known = {one.plan: one for one in judged if one is not None}
    for done, (role, plan) in enumerate(bases, start=len(finalists)):
        progress(done, total)
        if plan in known:
            baselines.append(replace(known[plan], role=role))
        else:
            baselines.append(judge_if_able(question, role, plan, guess, life_s))
    others = [one for one in baselines if one is not None]
    able = [one for one in judged if one is not None]
    best = _sorted(
        question,
        [*able, *(one for one in others if one.role == "sensible" and one.plan not in known)],
    )
    if not best:
        raise _nothing_fits(question, rejected)
    return ServingAnswer(
        best=[replace(one, role=role) for one, role in zip(best, _ROLES, strict=False)],
        baselines=_one_each(question, others),
        asked=asked_load(question),
        num_considered=sum(one.num_considered for one in found.values()) * len(list(limits())),
        num_fitting=sum(len(one) for one in fitting.values()) * len(list(limits())),
        rejected=dict(rejected),
    )


def _finalists(question: ServingQuestion, fitting: Mapping[str, list[Division]]) -> list[Ranked]:
    """The best without pipeline stages, the best with them (the closed form knows no bubbles, and
    flatters them), and the best that has prompts apart from decoding."""
    asked = asked_load(question)
    whole = [
        ranked
        for pool in question.fleet.pools
        for ranked in rank_divisions(question, pool, fitting[pool.name])
    ]
    whole.sort(key=lambda one: one.value(question.objective, asked))
    split = split_plans(question, fitting)
    split.sort(key=lambda one: one.value(question.objective, asked))
    plain = [one for one in whole if one.plan.pipeline_degree == 1]
    staged = [one for one in whole if one.plan.pipeline_degree > 1]
    return [*plain[:1], *staged[:1], *split[:1]]


def _sorted(question: ServingQuestion, options: list[ServingOption]) -> list[ServingOption]:
    """Those that keep the targets first, then by the objective."""

    def key(one: ServingOption) -> tuple[bool, float]:
        value = one.value(question.objective)
        return not one.meets, math.inf if value is None else value

    return sorted(options, key=key)


def _one_each(question: ServingQuestion, options: list[ServingOption]) -> list[ServingOption]:
    """Of each role the best of its pools."""
    ranked = _sorted(question, options)
    return [
        next(one for one in ranked if one.role == role)
        for role in ("newcomer", "sensible")
        if any(one.role == role for one in ranked)
    ]


def _nothing_fits(question: ServingQuestion, rejected: Mapping[str, int]) -> NegativeAnswer:
    told = "; ".join(f"{number} plans {reason}" for reason, number in rejected.items())
    return NegativeAnswer(
        f"no plan serves '{question.model.name}' on this fleet: {told}",
        at=f"fleet '{question.fleet.name}'",
        help="name more or larger devices, or fewer bits: --precision fp8, or bf16,int8",
    )
