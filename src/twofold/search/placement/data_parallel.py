"""Plans whose pools are data ranks: shares as unlike as their speeds, or equal ones.

Outer enumeration: subset of pools, layout of a rank, number of micro-batches (the same on every
rank: each ends in a collective under sharded weights). Inner programme: the shares, exactly.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import combinations

from twofold.perf.pool_exchange import Exchange, fleet_exchange, gloo_exchange
from twofold.perf.rates import overlapped_s
from twofold.perf.uneven import RankCosts
from twofold.plan import Plan, Share
from twofold.search.placement.found import Kind, Placement, PoolPart
from twofold.search.placement.question import Question
from twofold.search.placement.replicas import Replicas, arithmetic_fraction
from twofold.search.placement.shares import ShareCurve, SharedOut, best_shares, even_split
from twofold.search.placement.whole_run import run_estimate

_GRADIENT_BYTES = 4.0
_DENSE_COUNTS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranks:
    """Data ranks of one layout on a subset of pools: `count` of each, in the order of the ring."""

    layout: Plan
    pools: tuple[int, ...]
    count: tuple[int, ...]
    costs: tuple[RankCosts, ...]
    exchange: Exchange
    overlap: float
    how: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """Ranks with their shares: a step is the slowest's work, what of the exchange it does not
    hide, and waiting."""

    ranks: Ranks
    out: SharedOut
    micro_batches: int
    exposed_s: float

    @property
    def wait_fraction(self) -> float:
        return max(costs.wait_fraction for costs in self.ranks.costs)

    @property
    def step_s(self) -> float:
        return (self.out.slowest_s + self.exposed_s) * (1.0 + self.wait_fraction)


def rank_groups(question: Question, replicas: Replicas) -> Iterator[Ranks]:
    """Every layout on every subset of the pools that it divides.

    Of one catalog pool alone the fleet's own search knows more plans, and is asked elsewhere.
    """
    found = [
        (layout, counts)
        for layout in replicas.layouts()
        for subset in _subsets(question)
        if (counts := _counts(question, layout, subset)) is not None
    ]
    replicas.price(
        (pool, layout, sum(counts.values())) for layout, counts in found for pool in counts
    )
    for layout, counts in found:
        yield make_ranks(question, replicas, layout, counts)


def _subsets(question: Question) -> list[tuple[int, ...]]:
    pools = range(len(question.pools))
    sizes = range(1 if question.local else 2, len(pools) + 1)
    return [subset for size in sizes for subset in combinations(pools, size)]


def _counts(question: Question, layout: Plan, subset: tuple[int, ...]) -> dict[int, int] | None:
    """Data ranks in each pool, None where the layout does not divide one."""
    each = layout.tensor_degree * layout.pipeline_degree
    devices = {i: question.pools[i].num_devices for i in subset}
    total = sum(devices.values()) // each
    if any(count % each for count in devices.values()) or total > question.global_batch:
        return None
    return {i: count // each for i, count in devices.items()}


def make_ranks(
    question: Question, replicas: Replicas, layout: Plan, counts: dict[int, int]
) -> Ranks:
    order, hops = question.ring(tuple(counts))
    total = sum(counts.values())
    return Ranks(
        layout=layout,
        pools=order,
        count=tuple(counts[i] for i in order),
        costs=tuple(replicas.costs(i, layout, total) for i in order),
        exchange=exchange_of(question, order, counts, layout, _GRADIENT_BYTES),
        overlap=0.0 if question.local else question.fit.shared.data_overlap,
        how="; ".join(dict.fromkeys(hop.how for hop in hops)),
    )


def exchange_of(
    question: Question,
    order: tuple[int, ...],
    counts: dict[int, int],
    layout: Plan,
    gradient_bytes: float,
) -> Exchange:
    _, hops = question.ring(tuple(sorted(order)))
    if question.local:
        pools = [(question.pools[i], counts[i]) for i in order]
        return gloo_exchange(pools, hops, gradient_bytes * question.parameters)
    problems = [(question.problems[i], counts[i]) for i in order]
    return fleet_exchange(problems, hops, layout, gradient_bytes=gradient_bytes)


def share_out(question: Question, ranks: Ranks, *, even: bool) -> Shared | None:
    """The best number of micro-batches and, unless `even`, the best shares; None: nothing fits."""
    best: Shared | None = None
    for micros in micro_batch_counts(question.global_batch // sum(ranks.count)):
        curves = [
            ShareCurve(ranks=count, least=micros, finish_s=costs.finish_s(micros))
            for count, costs in zip(ranks.count, ranks.costs, strict=True)
        ]
        out = (even_split if even else best_shares)(question.global_batch, curves)
        if out is None or not _cut_alike(out, micros):
            continue
        exposed = exposed_s(ranks.exchange, out.slowest_s, micros, ranks.overlap)
        found = Shared(ranks=ranks, out=out, micro_batches=micros, exposed_s=exposed)
        if best is None or found.step_s < best.step_s:
            best = found
    return best


def exposed_s(exchange: Exchange, busy_s: float, micro_batches: int, overlap: float) -> float:
    """What of the exchange the slowest rank's work does not hide, as `perf.cluster` has it: what
    a micro-batch hides every time, it cannot hide once more for the step's exchange."""
    micro_s = busy_s / micro_batches
    spare_s = max(micro_s - exchange.every_s, 0.0)
    once = float(overlapped_s(spare_s, exchange.once_s, overlap)) - spare_s  # type: ignore[arg-type]
    every = float(overlapped_s(micro_s, exchange.every_s, overlap)) - micro_s  # type: ignore[arg-type]
    return once + micro_batches * every


def micro_batch_counts(most: int) -> list[int]:
    """All up to 16, then about a sixth apart."""
    counts = list(range(1, min(most, _DENSE_COUNTS) + 1))
    while counts[-1] < most:
        counts.append(min(most, counts[-1] + max(1, counts[-1] // 6)))
    return counts


def _cut_alike(out: SharedOut, micro_batches: int) -> bool:
    """Whether the plan's micro-batch, the largest, gives back their number."""
    largest = max(share for counts in out.shares for _, share in counts)
    return -(-largest // -(-largest // micro_batches)) == micro_batches


def placement_of(question: Question, kind: Kind, shared: Shared) -> Placement:
    """The plan with its figures."""
    ranks, names = shared.ranks, [question.pools[i].name for i in shared.ranks.pools]
    parts = tuple(
        PoolPart(
            pool=name,
            devices=count * ranks.layout.tensor_degree * ranks.layout.pipeline_degree,
            ranks=count,
            sequences=counts,
            layers=(),
            busy_s=float(costs.finish_s(shared.micro_batches)[counts[0][1] - shared.micro_batches]),
            peak_bytes=costs.peak_at(counts[0][1], shared.micro_batches),
            usable_bytes=costs.usable_bytes,
        )
        for name, count, costs, counts in zip(
            names, ranks.count, ranks.costs, shared.out.shares, strict=True
        )
    )
    own = [
        costs.parts_s(counts[0][1], shared.micro_batches)
        for costs, counts in zip(ranks.costs, shared.out.shares, strict=True)
    ]
    slowest = max(range(len(parts)), key=lambda i: parts[i].busy_s)
    scale = shared.out.slowest_s / sum(own[slowest].values())
    step_parts = {name: scale * seconds for name, seconds in own[slowest].items()}
    step_parts["data messages"] = shared.exposed_s
    step_parts["jitter"] = shared.step_s - sum(step_parts.values())
    half_width = max(costs.half_width for costs in ranks.costs)
    return Placement(
        kind=kind,
        plan=plan_of(names, shared),
        estimate=run_estimate(
            question,
            parts,
            step_parts,
            half_width,
            max(costs.startup_s for costs in ranks.costs),
            [arithmetic_fraction(o) for o in own],
        ),
        parts=parts,
        messages_s=shared.exposed_s,
        half_width=half_width,
        how=ranks.how,
    )


def plan_of(names: list[str], shared: Shared) -> Plan:
    """As the runtime executes it. One pool whose shares are as even as can be names none."""
    counts = [pair for pairs in shared.out.shares for pair in pairs]
    largest = max(share for _, share in counts)
    shares = tuple(
        Share(pool=name, ranks=n, sequences=share)
        for name, pairs in zip(names, shared.out.shares, strict=True)
        for n, share in pairs
    )
    return replace(
        shared.ranks.layout,
        pool=names[0],
        data_degree=sum(n for n, _ in counts),
        micro_batch=-(-largest // shared.micro_batches),
        shares=() if len(names) == 1 else shares,
    )
