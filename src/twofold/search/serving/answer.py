"""The answer: best plans, what others would run, and what was looked at."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from twofold.document import as_json
from twofold.errors import NegativeAnswer
from twofold.search.serving.baselines import newcomer, sensible
from twofold.search.serving.disaggregation import split_plans
from twofold.search.serving.dividend import ThinkingDividend, thinking_dividend
from twofold.search.serving.finals import falls_short, fewest_replicas, judge_if_able
from twofold.search.serving.options import ServingOption
from twofold.search.serving.question import ServingQuestion
from twofold.search.serving.ranking import Ranked, as_it_is, asked_load, rank_divisions
from twofold.search.serving.space import Division, divisions, limits
from twofold.serving_plan import ServingPlan

Progress = Callable[[int, int], None]

_ROLES = ("best", "second", "third")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingAnswer:
    """The best plans, best first, and the baselines that fit. `asked` is the load that was asked
    for; the best plan carries it unless `is_no`. `dividend` is against the sensible plan."""

    best: list[ServingOption]
    baselines: list[ServingOption]
    dividend: ThinkingDividend | None
    asked: float | None
    num_considered: int
    num_fitting: int
    num_simulated: int
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
            "dividend": as_json(self.dividend),
            "asked": self.asked,
            "met": not self.is_no,
            "num_considered": self.num_considered,
            "num_fitting": self.num_fitting,
            "num_simulated": self.num_simulated,
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
    judging = _Judging(question, progress, total=len(finalists) + len(bases))
    for ranked in finalists:
        if ranked.plan.prefill is None:
            judging.finalist(ranked)
    for role, plan in bases:
        judging.baseline(role, plan)
    for ranked in finalists:
        if ranked.plan.prefill is not None:
            judging.finalist(ranked)
    best = _sorted(question, judging.able)
    if not best:
        raise _nothing_fits(question, rejected)
    kept = _one_each(question, judging.baselines)
    sensible_one = next((one for one in kept if one.role == "sensible"), None)
    return ServingAnswer(
        best=[replace(one, role=role) for one, role in zip(best, _ROLES, strict=False)],
        baselines=kept,
        dividend=None
        if sensible_one is None
        else thinking_dividend(question, best[0], sensible_one),
        asked=asked_load(question),
        num_considered=sum(one.num_considered for one in found.values()) * len(list(limits())),
        num_fitting=sum(len(one) for one in fitting.values()) * len(list(limits())),
        num_simulated=judging.done,
        rejected=dict(rejected),
    )


class _Judging:
    """Plans simulated one after the other. `able` are those that can be the answer; what the first
    carried more than its closed form says corrects the guesses of the others."""

    def __init__(self, question: ServingQuestion, progress: Progress, *, total: int) -> None:
        self.question, self.progress, self.total = question, progress, total
        self.done, self.correction = 0, 1.0
        self.able: list[ServingOption] = []
        self.baselines: list[ServingOption] = []

    def finalist(self, ranked: Ranked) -> None:
        """Not looked at closely where three that were carry more."""
        sized = fewest_replicas(self.question, ranked)
        self._tell()
        if falls_short(self.question, sized, self._third()):
            return
        one = self._judged("best", sized)
        if one is None:
            return
        if not self.able and one.carried and sized.carried:
            self.correction = one.carried / sized.carried
        self.able.append(one)

    def baseline(self, role: str, plan: ServingPlan) -> None:
        """A newcomer's is no answer: whoever serves as good engines do has a better one."""
        self._tell()
        known = next((one for one in self.able if one.plan == plan), None)
        one = known or self._judged(role, as_it_is(self.question, plan))
        if one is None:
            return
        self.baselines.append(replace(one, role=role))
        if role == "sensible" and known is None:
            self.able.append(one)

    def _judged(self, role: str, ranked: Ranked) -> ServingOption | None:
        guess = self.correction * ranked.carried
        return judge_if_able(self.question, role, ranked.plan, guess, ranked.life_s)

    def _third(self) -> float:
        """What the third of those looked at carries."""
        carried = sorted((one.carried for one in self.able if one.meets), reverse=True)
        return carried[len(_ROLES) - 1] if len(carried) >= len(_ROLES) else 0.0

    def _tell(self) -> None:
        self.progress(self.done, self.total)
        self.done += 1


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
