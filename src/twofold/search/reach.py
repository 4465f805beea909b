"""How far training gets by a date: the most tokens, of each model on each pool."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from twofold.errors import InputError, NegativeAnswer, TwofoldError
from twofold.fleet import Fleet
from twofold.model import Model, active_parameters, num_parameters
from twofold.perf.fleet import estimate_plans, make_problem
from twofold.perf.speeds import Efficiencies
from twofold.search.answers import joined_refusals, pool_title
from twofold.search.fleet_search import by_date
from twofold.search.options import Option, make_option
from twofold.workload import Train


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """The tokens that are done by then, and the run that does them; or why there is none."""

    title: str
    model: Model
    fleet: Fleet
    tokens: int = 0
    workload: Train | None = None
    option: Option | None = None
    refusal: str | None = None

    def as_mapping(self) -> dict[str, Any]:
        return {
            "fleet": self.title,
            "model": self.model.name,
            "parameters": num_parameters(self.model),
            "active_parameters": active_parameters(self.model),
            "tokens": self.tokens,
            "plan": None if self.option is None else self.option.as_mapping(),
            "refusal": self.refusal,
        }


CHINCHILLA_TOKENS = 20.0
"""Tokens for a parameter at which training compute is well spent on a dense model (Hoffmann et
al. 2022, arXiv 2203.15556). Models that are served much are trained on more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """How many tokens are enough: so many, or unless said 20 for each active parameter."""

    tokens: int | None = None

    @property
    def words(self) -> str:
        if self.tokens is None:
            return f"{CHINCHILLA_TOKENS:.0f} tokens for each active parameter"
        return f"{self.tokens:,} tokens"

    def share(self, reach: Reach) -> float:
        """Tokens done over tokens wanted."""
        wanted = self.tokens or CHINCHILLA_TOKENS * active_parameters(reach.model)
        return reach.tokens / wanted

    def met_by(self, reach: Reach) -> bool:
        return self.share(reach) >= 1.0

    def largest(self, reaches: Sequence[Reach]) -> Reach:
        """The largest model that gets enough, on the fleet that gets it farthest; where none
        does, the one that comes nearest."""
        done = [reach for reach in reaches if reach.option is not None]
        enough = [reach for reach in done if self.met_by(reach)]
        if not enough:
            return max(done, key=self.share)
        return max(enough, key=lambda reach: (num_parameters(reach.model), reach.tokens))


def find_reach(
    models: Sequence[Model],
    workload: Train,
    fleets: Sequence[Fleet],
    seconds: float,
    date: str,
    fit: Efficiencies,
) -> tuple[Reach, ...]:
    """The most tokens of each model on each pool within so many seconds, largest model first.

    NegativeAnswer where there is not one step anywhere.
    """
    found: list[Reach] = []
    refusals: list[tuple[str, TwofoldError]] = []
    for model in sorted(models, key=num_parameters, reverse=True):
        for fleet in fleets:
            for pool in fleet.pools:
                alone = replace(fleet, pools=(pool,))
                title = pool_title(fleet, pool)
                problem = make_problem(model, workload, pool, fit, date)
                try:
                    tokens, plan, _ = by_date(problem, seconds)
                except (NegativeAnswer, InputError) as refusal:
                    refusals.append((f"{model.name} on {title}", refusal))
                    found.append(Reach(title=title, model=model, fleet=alone, refusal=refusal.what))
                    continue
                run = replace(problem, workload=replace(workload, tokens=tokens))
                [estimate] = estimate_plans(run, [plan])
                found.append(
                    Reach(
                        title=title,
                        model=model,
                        fleet=alone,
                        tokens=tokens,
                        workload=run.workload,
                        option=make_option(title, run, plan, estimate),
                    )
                )
    if len(refusals) == len(found):
        raise joined_refusals(refusals)
    return tuple(found)
