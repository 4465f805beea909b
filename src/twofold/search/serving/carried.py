"""The load that a plan carries within the targets, found by simulation."""

from __future__ import annotations

import math

from twofold.search.serving.question import ServingQuestion
from twofold.search.serving.trial import Tried, try_within, whole_load
from twofold.serving_plan import ServingPlan

_WIDEN, _FASTER = 1.08, 1.5
"""Each step away from the guess is wider than the one before."""
CLOSE = 1.025
"""Loads so near to each other are one."""
_LIGHTEST = 0.01
"""Requests that live at once, on the mean: there is no lighter load."""
_HIGHEST = 1e4
"""Of the guess, or of what was kept: where so much is still carried, no target limits it."""


def most_load(
    question: ServingQuestion,
    plan: ServingPlan,
    guess: float,
    life_s: float,
    known: Tried | None = None,
) -> tuple[float, Tried | None]:
    """The highest load that keeps the targets, and the trial of it (None where the lightest load
    does not): outwards from the guess, then halving on logs. A `known` trial bounds it: a load
    that was kept is carried."""
    closed = question.workload.arrivals.kind == "closed"
    lightest = whole_load(question, plan, 1.0) if closed else _LIGHTEST / life_s
    floor = known if known is not None and known.meets else None
    ceiling = known.load if known is not None and not known.meets else math.inf
    highest = _HIGHEST * max(guess, lightest, 0.0 if floor is None else floor.load)
    low: Tried | None = None
    high: float | None = None
    load, widen = whole_load(question, plan, guess), _WIDEN
    while low is None or high is None:
        load = min(load, ceiling)
        if floor is not None and load <= floor.load:
            tried: Tried | None = floor
        else:
            within = load < ceiling
            tried = try_within(question, plan, load, life_s) if within else None
        if tried is not None:
            low = tried
            load = whole_load(question, plan, max(low.load * widen, low.load + lightest))
        else:
            high = load
            load = min(whole_load(question, plan, load / widen), load - lightest)
        if low is None and load < lightest:
            return 0.0, None
        if low is not None and load > highest:
            return low.load, low
        widen **= _FASTER
    return _halved(question, plan, low, high, life_s)


def _halved(
    question: ServingQuestion, plan: ServingPlan, low: Tried, high: float, life_s: float
) -> tuple[float, Tried]:
    while high > CLOSE * low.load:
        middle = whole_load(question, plan, math.sqrt(low.load * high))
        if not low.load < middle < high:
            break
        tried = try_within(question, plan, middle, life_s)
        if tried is not None:
            low = tried
        else:
            high = middle
    return low.load, low
