"""From a question (a model, its training, fleets, what matters) to plans compared with baselines.

Composes catalog, physics and search; returns figures, None where one is unknown, and never
prints. Every pool of every fleet is an alternative: a plan uses one pool.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from twofold.catalog import remarks
from twofold.errors import InputError, NegativeAnswer, TwofoldError
from twofold.fleet import Fleet, Pool
from twofold.model import Model
from twofold.outcome import Estimate, Outcome
from twofold.perf.fleet import Problem, make_problem, price_table
from twofold.perf.plans import table_of
from twofold.perf.speeds import Efficiencies
from twofold.plan import Plan, Precision
from twofold.search.baselines import baseline_plans
from twofold.search.fleet_search import FleetShortlist, best_plans, pareto
from twofold.search.nearest import Wanted, machines_that_do
from twofold.search.objective import Limits
from twofold.search.options import Objective, Option, make_option, num_devices
from twofold.units import format_seconds
from twofold.workload import Train

BEST = "best"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What the plan is for: what to minimise, within which limits. None: no limit."""

    objective: Objective = "time"
    deadline_s: float | None = None
    budget_usd: float | None = None
    power_cap_w: float | None = None
    precisions: tuple[Precision, ...] | None = None
    memory_limit_bytes: float | None = None
    limit: int = 3

    @property
    def limits(self) -> Limits:
        return Limits(
            deadline_s=self.deadline_s, budget_usd=self.budget_usd, power_cap_w=self.power_cap_w
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolAnswer:
    """What was found on one pool: the best plans, best first, and the baselines by name.

    `refusal` says why there is none (nothing fits, or a figure is missing); then the rest is
    empty.
    """

    title: str
    fleet: Fleet
    pool: Pool
    best: tuple[Option, ...] = ()
    baselines: tuple[Option, ...] = ()
    num_considered: int = 0
    num_fitting: int = 0
    rejected: dict[str, int]
    refusal: TwofoldError | None = None

    def as_mapping(self) -> dict[str, Any]:
        return {
            "fleet": self.title,
            "pool": self.pool.name,
            "machines": self.pool.num_nodes,
            "devices": self.pool.num_devices,
            "device": self.pool.node.accelerator.name,
            "region": self.pool.region,
            "num_considered": self.num_considered,
            "num_fitting": self.num_fitting,
            "rejected": self.rejected,
            "refusal": None if self.refusal is None else self.refusal.what,
            "help": None if self.refusal is None else self.refusal.help,
            "best": [option.as_mapping() for option in self.best],
            "baselines": [option.as_mapping() for option in self.baselines],
            "remarks": list(remarks(self.fleet)),
        }


def answer_fleets(
    model: Model,
    workload: Train,
    fleets: Sequence[Fleet],
    wish: Wish,
    date: str,
    fit: Efficiencies,
) -> tuple[PoolAnswer, ...]:
    """The best plans on every pool of every fleet, in their order.

    A pool that has no plan is among the answers where another has one; where none has, the
    reasons of all.
    """
    answers = tuple(
        _answer_pool(make_problem(model, workload, pool, fit, date), fleet, wish)
        for fleet in fleets
        for pool in fleet.pools
    )
    refusals = [(one.title, one.refusal) for one in answers if one.refusal is not None]
    if len(refusals) == len(answers):
        raise joined_refusals(refusals)
    return answers


def find_front(
    model: Model,
    workload: Train,
    fleets: Sequence[Fleet],
    wish: Wish,
    date: str,
    fit: Efficiencies,
    against: Objective,
) -> tuple[Option, ...]:
    """Plans of all pools that none of them beats in both time and `against`, fastest first.

    Each has its fleet as its role. NegativeAnswer where nothing fits on any pool.
    """
    options: list[Option] = []
    refusals: list[tuple[str, TwofoldError]] = []
    for fleet in fleets:
        for pool in fleet.pools:
            role = pool_title(fleet, pool)
            problem = make_problem(model, workload, pool, fit, date)
            try:
                found = pareto(
                    problem,
                    "time",
                    against,
                    precisions=wish.precisions,
                    memory_limit_bytes=wish.memory_limit_bytes,
                )
            except (NegativeAnswer, InputError) as refusal:
                refusals.append((role, refusal))
                continue
            options += [
                make_option(
                    role, problem, plan, estimate, memory_limit_bytes=wish.memory_limit_bytes
                )
                for plan, estimate in found
            ]
    if not options:
        raise joined_refusals(refusals)
    return _undominated(options, against)


def _undominated(options: Sequence[Option], against: Objective) -> tuple[Option, ...]:
    kept: list[Option] = []
    least = math.inf
    for option in sorted(options, key=lambda one: (one.time_s.value, one.amount(against))):
        amount = option.amount(against)
        if amount is not None and amount < least:
            kept.append(option)
            least = amount
    return tuple(kept)


def pool_title(fleet: Fleet, pool: Pool) -> str:
    return fleet.name if len(fleet.pools) == 1 else f"{fleet.name}, {pool.name}"


def _answer_pool(problem: Problem, fleet: Fleet, wish: Wish) -> PoolAnswer:
    alone = fleet if len(fleet.pools) == 1 else replace(fleet, pools=(problem.pool,))
    title = pool_title(fleet, problem.pool)
    try:
        found = _search(problem, wish)
    except (NegativeAnswer, InputError) as refusal:
        return PoolAnswer(title=title, fleet=alone, pool=problem.pool, rejected={}, refusal=refusal)
    return PoolAnswer(
        title=title,
        fleet=alone,
        pool=problem.pool,
        best=tuple(
            _option(BEST if place == 0 else f"no. {place + 1}", problem, pair, wish)
            for place, pair in enumerate(found.ranked)
        ),
        baselines=tuple(
            _option(name, problem, pair, wish)
            for name, pair in baseline_plans(
                problem, limits=wish.limits, memory_limit_bytes=wish.memory_limit_bytes
            ).items()
        ),
        num_considered=found.num_considered,
        num_fitting=found.num_fitting,
        rejected=found.rejected,
    )


def _option(role: str, problem: Problem, pair: tuple[Plan, Estimate], wish: Wish) -> Option:
    plan, estimate = pair
    columns = price_table(problem, table_of([plan]))
    return make_option(
        role,
        problem,
        plan,
        estimate,
        memory_limit_bytes=wish.memory_limit_bytes,
        broken_limits=tuple(name for name, broken in wish.limits.broken(columns) if broken[0]),
    )


def joined_refusals(refusals: Sequence[tuple[str, TwofoldError]]) -> TwofoldError:
    """The only one, or all as one: "no" where any is a "no", else a question to correct."""
    if len(refusals) == 1:
        return refusals[0][1]
    told = [error for _, error in refusals]
    kind = NegativeAnswer if any(isinstance(e, NegativeAnswer) for e in told) else InputError
    return kind(
        "no fleet has a plan: " + "; ".join(f"{name}: {error.what}" for name, error in refusals),
        at="--fleet",
        help="; ".join(f"{name}: {error.help}" for name, error in refusals),
    )


def _search(problem: Problem, wish: Wish) -> FleetShortlist:
    if wish.limits != Limits():
        _check_limits(problem, wish)
    return best_plans(
        problem,
        objective=wish.objective,
        limit=wish.limit,
        deadline_s=wish.deadline_s,
        budget_usd=wish.budget_usd,
        power_cap_w=wish.power_cap_w,
        precisions=wish.precisions,
        memory_limit_bytes=wish.memory_limit_bytes,
    )


def _check_limits(problem: Problem, wish: Wish) -> None:
    """NegativeAnswer where even the fastest plan is too late, the cheapest too dear, or a single
    device draws too much."""

    def least(objective: Objective) -> tuple[Plan, Outcome]:
        found = best_plans(
            problem,
            objective=objective,
            limit=1,
            precisions=wish.precisions,
            memory_limit_bytes=wish.memory_limit_bytes,
        )
        plan, estimate = found.ranked[0]
        return plan, estimate.outcome

    at = f"fleet '{problem.pool.name}'"
    if wish.power_cap_w is not None:
        plan, outcome = least("time")
        devices = num_devices(plan)
        each_w = (outcome.energy_j or 0.0) / outcome.time_s / devices
        if each_w > wish.power_cap_w:
            raise NegativeAnswer(
                f"one device of {devices:,} draws {each_w:,.0f} W with its share of machine and "
                f"facility, the cap is {wish.power_cap_w:,.0f} W",
                at=at,
                help=f"allow {each_w * devices / 1e3:,.0f} kW for all of them, or a part of it",
            )
    if wish.deadline_s is not None:
        fastest_s = least("time")[1].time_s
        if fastest_s > wish.deadline_s:
            raise NegativeAnswer(
                f"the fastest plan takes {format_seconds(fastest_s)}, the deadline is after "
                f"{format_seconds(wish.deadline_s)}",
                at=at,
                help="allow more time, or train on fewer tokens"
                + _more_machines(problem, wish, fastest_s),
            )
    if wish.budget_usd is not None:
        cheapest = least("cost")[1].cost_usd
        if cheapest is not None and cheapest > wish.budget_usd:
            raise NegativeAnswer(
                f"the cheapest plan costs ${cheapest:,.0f}, the budget is ${wish.budget_usd:,.0f}",
                at=at,
                help="allow more, train on fewer tokens, or try another fleet or --term",
            )


def _more_machines(problem: Problem, wish: Wish, fastest_s: float) -> str:
    """A number of machines that was tried and meets the deadline, in words; nothing if none did."""
    assert wish.deadline_s is not None
    if not wish.deadline_s > 0:
        return ""
    usable_bytes = problem.pool.node.accelerator.memory.usable_bytes.value
    wanted = Wanted(
        limit_bytes=min(usable_bytes, wish.memory_limit_bytes or usable_bytes),
        limits=wish.limits,
        precisions=wish.precisions,
    )
    least = math.ceil(problem.pool.num_nodes * fastest_s / wish.deadline_s)
    count = machines_that_do(problem, wanted, least)
    return "" if count is None else f", or use {count:,} machines"


def best_of(answers: Sequence[PoolAnswer], objective: Objective) -> Option:
    """The best plan of all pools: by the objective, or by time where its figure is unknown."""
    firsts = [answer.best[0] for answer in answers if answer.best]

    def order(option: Option) -> tuple[bool, float]:
        amount = option.amount(objective)
        return amount is None, option.time_s.value if amount is None else amount

    return min(firsts, key=order)
