"""`twofold explain`: what a plan takes, in parts, and where the factor between two comes from."""

from twofold.search.breakdown import Explanation, explain
from twofold.search.comparison import Comparison, compare

__all__ = ["Comparison", "Explanation", "compare", "explain"]
