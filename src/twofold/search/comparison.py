"""Where the factor between two plans comes from, cause by cause.

v(S) = ln of the time per token of the hybrid that has the groups S from `b` and the rest from
`a`. The causes are its Shapley values (`evidence.attribution`) over the admissible orders: those
that change one group after the other with every hybrid on the way able to run. Price and
facility are plain factors of money and energy, so they are causes of their own without a game.
Carbon is a sum of what is drawn and what was made, so there they are players.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import combinations

from twofold.document import PlanDocument
from twofold.errors import InputError
from twofold.evidence.attribution import Coalition, coalitions, interaction
from twofold.outcome import Estimate
from twofold.perf.carbon import embodied_kgco2e, operational_kgco2e
from twofold.perf.cost import SECONDS_PER_HOUR
from twofold.perf.speeds import Efficiencies, fitted_efficiencies
from twofold.search.attribution import Attribution, attribute, separable_blocks
from twofold.search.breakdown import Explanation, explain, is_over_unlike_ranks, setting_of
from twofold.search.hybrids import (
    PLAN_GROUPS,
    Price,
    Pricer,
    Setting,
    differing_groups,
    hybrid,
    with_hybrid_dies,
)
from twofold.search.ratio_interval import SHARED_VARIANCE as SHARED_VARIANCE
from twofold.search.ratio_interval import (
    common_fraction,
    half_width,
    interval_about,
    ratio_half_width,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Interaction:
    """`factor` above 1: changing both takes longer than the product of changing each; None
    where one of the two cannot change first."""

    first: str
    second: str
    factor: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """A coalition that cannot run: `a` with these groups of `b`."""

    changed: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """b over a. The step time per token and its 90 % interval; cost, energy and carbon count
    start-up and failures in and are None where a figure is unknown. `overfull` are coalitions
    that were priced though they do not fit the memory. `merged` are the groups that no admissible
    order separates. `published_holds`: the whole published range lies in the interval.
    """

    a: Explanation
    b: Explanation
    time: Attribution
    low: float
    high: float
    interval_basis: str
    cost: Attribution | None
    energy: Attribution | None
    carbon: Attribution | None
    interactions: tuple[Interaction, ...]
    left_out: tuple[LeftOut, ...]
    overfull: tuple[tuple[str, ...], ...]
    num_coalitions: int
    merged: tuple[str, ...]
    published: tuple[float, float] | None
    published_holds: bool | None


def compare(
    a: PlanDocument,
    b: PlanDocument,
    *,
    date_a: str | None = None,
    date_b: str | None = None,
    fit: Efficiencies | None = None,
    published: tuple[float, float] | None = None,
) -> Comparison:
    """Attribute the ratio of two plans. Dates as in `explain`; `published` is a (low, high)
    factor of times, b over a, to be held against the interval."""
    for document in (a, b):
        if is_over_unlike_ranks(document.plan):
            raise InputError(
                "a plan over unlike pools or with local updates is not taken apart into causes",
                at=f"plan of {document.plan.num_ranks} ranks",
                help="compare the step times of `twofold explain` for each, or plan again on one "
                "pool",
            )
    one, other = setting_of(a, date_a), setting_of(b, date_b)
    fit = fit or fitted_efficiencies()
    pricer = Pricer(with_hybrid_dies(fit, one, other))
    for setting in (one, other):
        _check(setting, pricer)
    groups = differing_groups(one, other)
    prices, left_out = _price_all(one, other, groups, pricer)
    blocks = separable_blocks(groups, prices)
    time = attribute(blocks, {s: math.log(p.step_s) for s, p in prices.items()}, {})
    explained = explain(a, date=date_a, fit=fit), explain(b, date=date_b, fit=fit)
    half, basis = _half_width(explained[0].estimate, explained[1].estimate, one, other)
    believed = interval_about(time.ratio, half)
    low, high = believed.low, believed.high
    return Comparison(
        a=explained[0],
        b=explained[1],
        time=time,
        low=low,
        high=high,
        interval_basis=basis,
        cost=_cost(blocks, prices, one, other),
        energy=_energy(blocks, prices, one, other),
        carbon=_carbon(blocks, prices, one, other),
        interactions=_interactions(groups, {s: math.log(p.step_s) for s, p in prices.items()}),
        left_out=left_out,
        overfull=_overfull(groups, prices),
        num_coalitions=2 ** len(groups),
        merged=next((block for block in blocks if len(block) > 1), ()),
        published=published,
        published_holds=None
        if published is None
        else low <= min(published) <= max(published) <= high,
    )


def _check(setting: Setting, pricer: Pricer) -> None:
    if setting.accelerator.curves is not None:
        raise InputError(
            f"'{setting.accelerator.name}' is a calibrated machine: its curves cannot be split "
            "into chip, memory and link",
            at="fleet",
            help="compare its plans by measurement: `twofold prove`",
        )
    reason = pricer.refusal(setting, setting.num_devices)
    if reason is not None:
        raise InputError(
            f"the plan cannot run: {reason}", at="plan", help="make it with `twofold plan`"
        )


def _ordered(coalition: Coalition, groups: Sequence[str]) -> tuple[str, ...]:
    return tuple(group for group in groups if group in coalition)


def _price_all(
    a: Setting, b: Setting, groups: Sequence[str], pricer: Pricer
) -> tuple[dict[Coalition, Price], tuple[LeftOut, ...]]:
    hybrids: dict[Coalition, dict[Coalition, Setting]] = {}
    left_out = []
    for coalition in coalitions(groups):
        mixed = hybrid(a, b, coalition)
        devices = (b if "devices" in coalition else a).num_devices
        reason = pricer.refusal(mixed, devices)
        if reason is None:
            hybrids.setdefault(coalition.difference(PLAN_GROUPS), {})[coalition] = mixed
        else:
            left_out.append(LeftOut(changed=_ordered(coalition, groups), reason=reason))
    prices: dict[Coalition, Price] = {}
    for settings in hybrids.values():
        prices |= zip(settings, pricer.prices(list(settings.values())), strict=True)
    return prices, tuple(left_out)


def _overfull(
    groups: Sequence[str], prices: Mapping[Coalition, Price]
) -> tuple[tuple[str, ...], ...]:
    """Smallest first."""
    return tuple(
        _ordered(s, groups) for s in coalitions(groups) if s in prices and not prices[s].fits
    )


def _cost(
    blocks: Sequence[Sequence[str]], prices: Mapping[Coalition, Price], a: Setting, b: Setting
) -> Attribution | None:
    """Cost = time x billed devices x price of a device."""
    rents = [
        None
        if setting.pool.usd_per_node_hour is None
        else setting.pool.usd_per_node_hour.value / setting.pool.node.num_accelerators
        for setting in (a, b)
    ]
    if not rents[0] or not rents[1]:
        return None
    logs = {s: math.log(p.run_s * p.billed_devices) for s, p in prices.items()}
    return attribute(blocks, logs, {"price": rents[1] / rents[0]})


def _energy(
    blocks: Sequence[Sequence[str]], prices: Mapping[Coalition, Price], a: Setting, b: Setting
) -> Attribution | None:
    """Energy at the facility's meter: the machine's times the facility's overhead."""
    logs = {s: math.log(p.energy_j) for s, p in prices.items() if p.energy_j}
    if len(logs) < len(prices):
        return None
    pues = [setting.pool.pue.value if setting.pool.pue else 1.0 for setting in (a, b)]
    return attribute(blocks, logs, {"facility": pues[1] / pues[0]})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """What turns a hybrid's energy and machine-hours into carbon: the facility's overhead, the
    electricity's kgCO2e/kWh, and kgCO2e of making a device with its share of the machine."""

    facility: float
    electricity: float
    manufacture: float

    def kgco2e(self, price: Price, energy_j: float) -> float:
        """Per token."""
        drawn = operational_kgco2e(energy_j, self.facility, self.electricity)
        device_hours = price.billed_devices * price.run_s / SECONDS_PER_HOUR
        return float(drawn + embodied_kgco2e(self.manufacture, device_hours))


def _place(setting: Setting) -> _Place | None:
    """None where the electricity's carbon is unknown; what is not known of manufacture is left
    out, as in an estimate."""
    pool, node = setting.pool, setting.pool.node
    if pool.grid_kgco2e_per_kwh is None:
        return None
    device, machine = node.accelerator.embodied_kgco2e, node.embodied_kgco2e
    made = (machine.value / node.num_accelerators if machine else 0.0) + (
        device.value if device else 0.0
    )
    return _Place(
        facility=pool.pue.value if pool.pue else 1.0,
        electricity=pool.grid_kgco2e_per_kwh.value,
        manufacture=made,
    )


def _carbon(
    blocks: Sequence[Sequence[str]], prices: Mapping[Coalition, Price], a: Setting, b: Setting
) -> Attribution | None:
    """Electricity at the facility's meter and the share of making the machines."""
    one, other = _place(a), _place(b)
    if one is None or other is None:
        return None
    names = [f.name for f in fields(_Place) if getattr(one, f.name) != getattr(other, f.name)]
    logs = {}
    for changed in coalitions(names):
        place = replace(one, **{name: getattr(other, name) for name in changed})
        for groups, price in prices.items():
            if price.energy_j is None:
                return None
            logs[groups | changed] = math.log(place.kgco2e(price, price.energy_j))
    return attribute([*blocks, *((name,) for name in names)], logs, {})


def _interactions(
    groups: Sequence[str], logs: Mapping[Coalition, float]
) -> tuple[Interaction, ...]:
    """Of every pair, with nothing else changed; the strongest first, the inseparable last."""
    found = []
    for first, second in combinations(groups, 2):
        needed = [frozenset(pair) for pair in ((), (first,), (second,), (first, second))]
        factor = None
        if all(coalition in logs for coalition in needed):
            factor = math.exp(interaction(logs, first, second))
        found.append(Interaction(first=first, second=second, factor=factor))
    return tuple(
        sorted(
            found, key=lambda one: math.inf if one.factor is None else -abs(math.log(one.factor))
        )
    )


def _half_width(a: Estimate, b: Estimate, one: Setting, other: Setting) -> tuple[float, str]:
    """Of the ln ratio (90 %), and why it is so wide."""
    if one == other:
        return 0.0, "the same plan twice: nothing is uncertain between them"
    die, same_model = one.accelerator.die, one.model == other.model
    common = common_fraction(die, other.accelerator.die, same_model=same_model)
    half = ratio_half_width(half_width(a), half_width(b), common)
    if common:
        same = "die and model" if same_model else "die"
        return half, f"one {same} ({die}): {common:.0%} of the error is common to both"
    return half, "two dies: the errors of the two estimates are taken as independent"
