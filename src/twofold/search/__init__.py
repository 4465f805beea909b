"""From the legal space of plans to a ranked shortlist. Nothing is timed here."""

from twofold.search.shortlist import Shortlist, shortlist
from twofold.search.space import check_plan, legal_plans

__all__ = ["Shortlist", "check_plan", "legal_plans", "shortlist"]
