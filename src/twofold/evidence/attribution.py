"""Which cause gave how much of a speed-up, when causes help or hinder each other.

Shapley's value (Shapley 1953) is the only split that adds up to the whole, treats equal causes
equally and gives a cause without effect nothing. On log speed-ups the shares are factors that
multiply to the total.

Not every coalition need exist. The value then averages over the orders in which causes can be
changed one by one, every state on the way being possible: the Shapley value of a game with
restricted coalitions (Faigle and Kern 1992), which keeps the sum.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from twofold.evidence.records import Factor
from twofold.evidence.statistics import mean_interval

LARGEST_EXACT = 4
"""Causes for which every coalition can still be measured (16 configurations)."""

Coalition = frozenset[str]
Values = Mapping[Coalition, float]


def coalitions(causes: Collection[str]) -> list[Coalition]:
    """All subsets, the empty one first and the whole last."""
    ordered = sorted(causes)
    return [frozenset(c) for size in range(len(ordered) + 1) for c in combinations(ordered, size)]


def shapley(values: Values) -> dict[str, float]:
    """phi_i = Σ over S without i of |S|! (k-|S|-1)! / k! · [v(S + i) - v(S)].

    `values` gives v for every coalition of at most four causes.
    """
    causes = max(values, key=len)
    k = len(causes)
    assert k <= LARGEST_EXACT, f"{k} causes are too many to be measured exactly"
    assert set(values) == set(coalitions(causes)), "a coalition has no value"
    return shapley_over_orders(values, causes).shares


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderedShares:
    """Shares that add up to v(all) - v(none); empty where no order is admissible."""

    shares: dict[str, float]
    num_orders: int
    num_possible: int


def shapley_over_orders(values: Values, causes: Collection[str]) -> OrderedShares:
    """phi_i = mean over the admissible orders of v(those before i, and i) - v(those before i).

    A coalition without a value cannot exist, and an order that passes through it is left out.
    An edge S -> S + i lies on paths(none -> S) x paths(S + i -> all) orders, so they are counted
    and not walked; with all coalitions there the weights are |S|! (k-|S|-1)! / k!.
    """
    whole = frozenset(causes)
    admissible = [c for c in coalitions(whole) if c in values]
    before = dict.fromkeys(admissible, 0)
    after = dict.fromkeys(admissible, 0)
    if frozenset() in before:
        before[frozenset()] = 1
    if whole in after:
        after[whole] = 1
    for coalition in admissible:
        for cause in coalition:
            before[coalition] += before.get(coalition - {cause}, 0)
    for coalition in reversed(admissible):
        for cause in whole - coalition:
            after[coalition] += after.get(coalition | {cause}, 0)
    num_orders = before.get(whole, 0)
    shares = {}
    for cause in sorted(whole) if num_orders else ():
        shares[cause] = math.fsum(
            before[s] * after[s | {cause}] / num_orders * (values[s | {cause}] - values[s])
            for s in admissible
            if cause not in s and s | {cause} in after
        )
    return OrderedShares(
        shares=shares, num_orders=num_orders, num_possible=math.factorial(len(whole))
    )


def interaction(values: Values, a: str, b: str) -> float:
    """v(ab) - v(a) - v(b) + v(), in logs: above zero when the two causes help each other."""
    return (
        values[frozenset((a, b))]
        - values[frozenset((a,))]
        - values[frozenset((b,))]
        + values[frozenset()]
    )


def factors(blocks: Sequence[Values]) -> list[Factor]:
    """The causes as factors, from the log speed-ups of all coalitions in each block.

    `value` is exp(mean phi) with its 95 % interval over blocks; the values multiply to the total
    exactly. `first_in` is the cause alone, `last_in` the cause added to all others.
    """
    whole = max(blocks[0], key=len)
    shares = [shapley(values) for values in blocks]
    return [
        _factor(cause, whole, blocks, [phi[cause] for phi in shares]) for cause in sorted(whole)
    ]


def _factor(
    cause: str, whole: Coalition, blocks: Sequence[Values], shares: Sequence[float]
) -> Factor:
    phi = mean_interval(shares)
    alone, nothing, others = frozenset((cause,)), frozenset[str](), whole - {cause}
    return Factor(
        name=cause,
        value=math.exp(phi.mean),
        low=None if phi.low is None else math.exp(phi.low),
        high=None if phi.high is None else math.exp(phi.high),
        first_in=math.exp(_mean([v[alone] - v[nothing] for v in blocks])),
        last_in=math.exp(_mean([v[whole] - v[others] for v in blocks])),
    )


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
