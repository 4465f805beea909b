"""From the legal space of plans to a ranked shortlist. Nothing is timed here."""

from twofold.search.baselines import baseline_plans
from twofold.search.fleet_rules import check_fleet_plan
from twofold.search.fleet_search import (
    FleetShortlist,
    best_plans,
    by_date,
    largest_model_by_date,
    pareto,
)
from twofold.search.shortlist import Shortlist, shortlist
from twofold.search.space import check_plan, legal_plans

__all__ = [
    "FleetShortlist",
    "Shortlist",
    "baseline_plans",
    "best_plans",
    "by_date",
    "check_fleet_plan",
    "check_plan",
    "largest_model_by_date",
    "legal_plans",
    "pareto",
    "shortlist",
]
