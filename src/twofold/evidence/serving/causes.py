"""Which lever gave how much of the goodput, from arms that have some of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from twofold.evidence.attribution import Coalition, shapley_over_orders
from twofold.evidence.records import Factor
from twofold.evidence.serving.records import GoodputRow, ServingArm
from twofold.evidence.statistics import mean_interval


def attribute_goodput(
    arms: Sequence[ServingArm], levers: Sequence[str], goodputs: Sequence[GoodputRow]
) -> tuple[list[Factor], str]:
    """Factors that multiply to the whole, from every block that has all of the arms.

    Shapley's value over the orders in which every state on the way was measured; `first_in` and
    `last_in` are the least and the most that a lever gave in any of them.
    """
    states = {frozenset(arm.levers): arm.name for arm in arms if arm.levers is not None}
    whole = frozenset(levers)
    if not levers or frozenset() not in states or whole not in states:
        return [], "no attribution was asked for"
    blocks = _values(states, goodputs)
    if not blocks:
        return [], "no block has a goodput for every state between the two arms"
    ordered = [shapley_over_orders(values, levers) for values in blocks]
    if not ordered[0].num_orders:
        return [], "no order of the levers was measured from end to end"
    note = f"{ordered[0].num_orders} of {ordered[0].num_possible} orders of the levers measured"
    factors = []
    for lever in levers:
        phi = mean_interval([o.shares[lever] for o in ordered])
        steps = _steps(blocks, lever)
        factors.append(
            Factor(
                name=lever,
                value=math.exp(phi.mean),
                low=None if phi.low is None else math.exp(phi.low),
                high=None if phi.high is None else math.exp(phi.high),
                first_in=math.exp(min(steps)),
                last_in=math.exp(max(steps)),
            )
        )
    return factors, f"{note}, in {len(blocks)} blocks"


def _values(
    states: Mapping[Coalition, str], goodputs: Sequence[GoodputRow]
) -> list[dict[Coalition, float]]:
    """ln goodput over that of the state without levers, for every block that has them all."""
    found: dict[int, dict[str, float]] = {}
    for row in goodputs:
        if row.value is not None:
            found.setdefault(row.block, {})[row.arm] = row.value
    blocks = []
    for _, by_arm in sorted(found.items()):
        if all(name in by_arm for name in states.values()):
            base = by_arm[states[frozenset()]]
            blocks.append({s: math.log(by_arm[name] / base) for s, name in states.items()})
    return blocks


def _steps(blocks: Sequence[Mapping[Coalition, float]], lever: str) -> list[float]:
    """Mean over blocks of what adding the lever gave, one for each state it was added to."""
    states = [s for s in blocks[0] if lever not in s and s | {lever} in blocks[0]]
    return [
        math.fsum(values[s | {lever}] - values[s] for values in blocks) / len(blocks)
        for s in states
    ]
