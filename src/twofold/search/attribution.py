"""A game on groups of what differs, played to causes: singly where that can be, else together."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from twofold.evidence.attribution import (
    Coalition,
    OrderedShares,
    coalitions,
    shapley_over_orders,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """`factor` = exp(`log_share`); the factors multiply to the ratio. `alone` is the factor when
    nothing else changes, None where that machine cannot run or the cause is not in the game."""

    name: str
    factor: float
    log_share: float
    alone: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribution:
    """`ratio` of b over a, per token, and its causes, largest first. `residual` = ln ratio -
    sum of the log shares: rounding, since inseparable groups are merged until an order exists.
    """

    ratio: float
    causes: tuple[Cause, ...]
    residual: float
    num_orders: int
    num_possible: int


def separable_blocks(
    groups: Sequence[str], admissible: Collection[Coalition]
) -> tuple[tuple[str, ...], ...]:
    """The groups one by one; where no order is admissible the smallest set of them, and of
    those the one that leaves most orders, changes as one. (All together always can.)"""
    single = tuple((group,) for group in groups)
    if _orders(single, dict.fromkeys(admissible, 0.0)).num_orders:
        return single
    for size in range(2, len(groups) + 1):
        candidates = []
        for joined in combinations(groups, size):
            rest = tuple((group,) for group in groups if group not in joined)
            orders = _orders((joined, *rest), dict.fromkeys(admissible, 0.0)).num_orders
            candidates.append((orders, (joined, *rest)))
        most, best = max(candidates, key=lambda candidate: candidate[0])
        if most:
            return best
    raise AssertionError("both ends can run, so all groups at once can change")


def _name(block: Sequence[str]) -> str:
    return " + ".join(block)


def _orders(blocks: Sequence[Sequence[str]], logs: Mapping[Coalition, float]) -> OrderedShares:
    return shapley_over_orders(_of_blocks(blocks, logs), [_name(block) for block in blocks])


def _of_blocks(
    blocks: Sequence[Sequence[str]], logs: Mapping[Coalition, float]
) -> dict[Coalition, float]:
    """The game whose players are the blocks."""
    players = {_name(block): frozenset(block) for block in blocks}
    values = {}
    for coalition in coalitions(players):
        groups = frozenset[str]().union(*(players[name] for name in coalition))
        if groups in logs:
            values[coalition] = logs[groups]
    return values


def attribute(
    blocks: Sequence[Sequence[str]],
    logs: Mapping[Coalition, float],
    factors: Mapping[str, float],
) -> Attribution:
    """The game's shares and the plain factors beside it, as one list of causes."""
    values = _of_blocks(blocks, logs)
    names = [_name(block) for block in blocks]
    ordered = shapley_over_orders(values, names)
    start = values[frozenset()]
    total = values[frozenset(names)] - start + math.fsum(map(math.log, factors.values()))
    causes = []
    for name, share in ordered.shares.items():
        alone = values.get(frozenset((name,)))
        causes.append(
            Cause(
                name=name,
                factor=math.exp(share),
                log_share=share,
                alone=None if alone is None else math.exp(alone - start),
            )
        )
    causes += [
        Cause(name=name, factor=factor, log_share=math.log(factor), alone=factor)
        for name, factor in factors.items()
        if factor != 1.0
    ]
    return Attribution(
        ratio=math.exp(total),
        causes=tuple(sorted(causes, key=lambda cause: -abs(cause.log_share))),
        residual=total - math.fsum(cause.log_share for cause in causes),
        num_orders=ordered.num_orders,
        num_possible=ordered.num_possible,
    )
