"""From a question to plans over unlike pools, best first, beside two baselines.

The even split over all devices is what a framework does; the best equal shares on a subset of the
pools is what a well-informed user does without unlike shares. Both are tuned over the same
layouts and micro-batches as the plans they are compared with.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from twofold.errors import InputError, NegativeAnswer
from twofold.fleet import Fleet
from twofold.outcome import Estimate
from twofold.perf.local_updates import MOST_WORKERS
from twofold.perf.uneven import RankCosts
from twofold.plan import Plan
from twofold.search.fleet_search import best_plans
from twofold.search.options import Interval, num_devices
from twofold.search.placement.data_parallel import (
    Ranks,
    Shared,
    placement_of,
    rank_groups,
    share_out,
)
from twofold.search.placement.found import Kind, Placement, PoolPart
from twofold.search.placement.ideal import best_subset_gain, even_split_gain
from twofold.search.placement.pipelines import Pipelines, piped_placement
from twofold.search.placement.question import Question
from twofold.search.placement.replicas import Replicas
from twofold.search.placement.slow_links import WORTH_FRACTION, local_updates, worth_offering
from twofold.search.ratio_interval import SHARED_VARIANCE, ratio_half_width

MOST_SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementAnswer:
    """`best` are synchronous plans that differ in kind or pools, best first. `even` and `subset`
    are the baselines, None where there is none, and `no_even` and `no_subset` say why. `offered`
    are local updates, where they are faster and worth it; `why_not` says why there are none. The
    ideal gains are by speed alone."""

    fleet: Fleet
    best: tuple[Placement, ...]
    even: Placement | None
    subset: Placement | None
    no_even: str
    no_subset: str
    offered: tuple[Placement, ...]
    why_not: str
    ideal_over_even: float | None
    ideal_over_subset: float | None
    num_considered: int

    def gain_over(self, base: Placement) -> Interval:
        """How many times faster the best plan is than a baseline, in tokens a second."""
        return time_ratio(self.best[0], base)

    def as_mapping(self) -> dict[str, Any]:
        gains = {"even": self.even, "subset": self.subset}
        return {
            "fleet": self.fleet.name,
            "num_considered": self.num_considered,
            "best": [one.as_mapping() for one in self.best],
            "baselines": {n: None if b is None else b.as_mapping() for n, b in gains.items()},
            "gain": {
                n: None if b is None else self.gain_over(b).as_mapping() for n, b in gains.items()
            },
            "ideal_gain": {"even": self.ideal_over_even, "subset": self.ideal_over_subset},
            "local_updates": [one.as_mapping() for one in self.offered],
            "no_local_updates": self.why_not,
        }


def place(question: Question) -> PlacementAnswer:
    """All kinds of plans over the pools. NegativeAnswer where none fits."""
    replicas = Replicas(question)
    groups = list(rank_groups(question, replicas))
    uneven = _best_by_pools(question, groups, even=False)
    even = _best_by_pools(question, groups, even=True)
    alone = _alone(question)
    everywhere = tuple(range(len(question.pools)))
    pipelines = Pipelines(question, replicas)
    piped = pipelines.best()
    found = [
        placement_of(question, _kind(pools, shared, even.get(pools)), shared)
        for pools, shared in uneven.items()
    ]
    found += alone
    if piped is not None:
        found.append(piped_placement(question, pipelines, piped))
    if not found:
        raise _nothing_fits(question, groups)
    found.sort(key=lambda one: one.step_s)
    equal = [
        placement_of(question, "one pool" if len(pools) == 1 else "even shares", shared)
        for pools, shared in even.items()
    ]
    over_all = even.get(everywhere)
    offered, why_not = _offered(question, groups, uneven.get(everywhere), found[0])
    speeds = _speeds(question, uneven.get(everywhere))
    return PlacementAnswer(
        fleet=question.fleet,
        best=tuple(found[:MOST_SHOWN]),
        even=None if over_all is None else placement_of(question, "even shares", over_all),
        subset=min([*equal, *alone], key=lambda one: one.step_s, default=None),
        no_even=_why_none(question, [g for g in groups if len(g.pools) == len(everywhere)]),
        no_subset=_why_none(question, groups),
        offered=offered,
        why_not=why_not,
        ideal_over_even=even_split_gain(speeds) if speeds else None,
        ideal_over_subset=best_subset_gain(speeds) if speeds else None,
        num_considered=2 * len(groups) + pipelines.num_considered,
    )


def time_ratio(better: Placement, base: Placement) -> Interval:
    """Step of `base` over that of `better`: tokens a second. Paced by the same pool, they have
    most errors in common."""
    same = _pace(better) == _pace(base)
    common = SHARED_VARIANCE["die and model"] if same else 0.0
    half = ratio_half_width(better.half_width, base.half_width, common)
    ratio = base.step_s / better.step_s
    if better.plan == base.plan:
        half = 0.0
    return Interval(value=ratio, low=ratio * math.exp(-half), high=ratio * math.exp(half))


def _pace(placement: Placement) -> str:
    return max(placement.parts, key=lambda part: part.busy_s).pool


def _best_by_pools(
    question: Question, groups: Sequence[Ranks], *, even: bool
) -> dict[tuple[int, ...], Shared]:
    """The fastest of each subset of pools."""
    best: dict[tuple[int, ...], Shared] = {}
    for ranks in groups:
        shared = share_out(question, ranks, even=even)
        pools = tuple(sorted(ranks.pools))
        if shared is not None and (pools not in best or shared.step_s < best[pools].step_s):
            best[pools] = shared
    return best


def _kind(pools: tuple[int, ...], shared: Shared, even: Shared | None) -> Kind:
    if len(pools) == 1:
        return "one pool"
    as_even = even is not None and shared.step_s >= even.step_s
    return "even shares" if as_even else "uneven shares"


def _alone(question: Question) -> list[Placement]:
    """Each catalog pool by itself, as the fleet's own search would use it."""
    if question.local:
        return []
    assert question.precision is not None
    found = []
    for problem in question.problems:
        try:
            shortlist = best_plans(
                problem,
                limit=1,
                precisions=(question.precision,),
                memory_limit_bytes=min(
                    question.limit_bytes, problem.pool.node.accelerator.memory.usable_bytes.value
                ),
            )
        except (NegativeAnswer, InputError):
            continue
        plan, estimate = shortlist.ranked[0]
        half_width = problem.fit.spread_of(problem.pool.node.accelerator)
        found.append(_one_pool(question, plan, estimate, half_width))
    return found


def _one_pool(question: Question, plan: Plan, estimate: Estimate, half_width: float) -> Placement:
    outcome, device = estimate.outcome, question.fleet.pool(plan.pool).node.accelerator
    messages_s = sum(v for k, v in outcome.step_parts_s.items() if k.endswith("messages"))
    part = PoolPart(
        pool=plan.pool,
        devices=num_devices(plan),
        ranks=plan.data_degree,
        sequences=((plan.data_degree, question.global_batch // plan.data_degree),),
        layers=(),
        busy_s=outcome.step_time_s - messages_s,
        peak_bytes=outcome.peak_memory_bytes or 0.0,
        usable_bytes=min(question.limit_bytes, device.memory.usable_bytes.value),
    )
    return Placement(
        kind="one pool",
        plan=plan,
        estimate=estimate,
        parts=(part,),
        messages_s=messages_s,
        half_width=half_width,
    )


def _offered(
    question: Question, groups: Sequence[Ranks], synchronous: Shared | None, best: Placement
) -> tuple[tuple[Placement, ...], str]:
    """Local updates where messages are much of the synchronous step and they beat every
    synchronous plan, and why not where they are not."""
    if synchronous is not None and not worth_offering(synchronous):
        fraction = synchronous.exposed_s / synchronous.step_s
        return (), (
            f"messages are {fraction:.0%} of the synchronous step, less than {WORTH_FRACTION:.0%}: "
            "on links as fast as these local updates cost quality for nothing"
        )
    everywhere = [ranks for ranks in groups if len(ranks.pools) == len(question.pools)]
    if not everywhere:
        return (), f"a plan over all devices {_why_none(question, everywhere)}"
    placed = local_updates(question, groups)
    if not placed:
        return (), (
            f"a worker is one device with the whole model, and that does not fit, or there are "
            f"more than the {MOST_WORKERS} that were ever tried"
        )
    faster = tuple(one for one in placed if one.step_s < best.step_s)
    return faster, "" if faster else "local updates are no faster than the best synchronous plan"


def _speeds(question: Question, shared: Shared | None) -> list[float]:
    """Sequences a second of each device, at the shares it has: without any exchange."""
    if shared is None:
        return []
    each = shared.ranks.layout.tensor_degree * shared.ranks.layout.pipeline_degree
    speeds: list[float] = []
    for count, costs, counts in zip(
        shared.ranks.count, shared.ranks.costs, shared.out.shares, strict=True
    ):
        speed = _speed(costs, counts[0][1], shared.micro_batches) / each
        speeds += [speed] * (count * each)
    return speeds


def _speed(costs: RankCosts, share: int, micro_batches: int) -> float:
    return share / float(costs.finish_s(micro_batches)[share - micro_batches])


def _why_none(question: Question, groups: Sequence[Ranks]) -> str:
    """Why a baseline that is not there is not: of these groups none fits, or there are none."""
    devices = sum(pool.num_devices for pool in question.pools)
    if groups:
        return "does not fit"
    if question.global_batch < devices:
        return f"has fewer sequences ({question.global_batch}) than devices ({devices})"
    return "is divided by no layout"


def _nothing_fits(question: Question, groups: Sequence[Ranks]) -> NegativeAnswer:
    """With the leanest need of each pool."""
    if not groups:
        return NegativeAnswer(
            f"no layout divides these pools for a global batch of {question.global_batch}",
            at=f"fleet '{question.fleet.name}'",
            help="use a larger global batch, or fewer devices",
        )
    lines = []
    for i, pool in enumerate(question.pools):
        needs = [
            float(costs.peak_bytes[0])
            for ranks in groups
            for place, costs in zip(ranks.pools, ranks.costs, strict=True)
            if place == i
        ]
        usable = min(question.limit_bytes, pool.node.accelerator.memory.usable_bytes.value)
        lines.append(f"'{pool.name}' {min(needs) / 1e9:.3g} GB of {usable / 1e9:.3g}")
    return NegativeAnswer(
        "no plan over these pools fits: the leanest needs " + ", ".join(lines),
        at=f"fleet '{question.fleet.name}', memory",
        help="use larger or more devices, or shorter sequences",
    )
