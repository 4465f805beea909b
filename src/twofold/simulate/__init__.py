"""Event loops: what a plan does to requests that come and go, for the finalists of a search."""

from twofold.simulate.estimate import Simulated, simulate_plan, simulate_within

__all__ = ["Simulated", "simulate_plan", "simulate_within"]
