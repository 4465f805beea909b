"""When nothing fits: the nearest change that would, found by the same search."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from twofold.errors import InputError, NegativeAnswer
from twofold.perf.fleet import Problem, make_problem
from twofold.perf.plans import NARROW
from twofold.plan import Precision
from twofold.search.factors import divisors
from twofold.search.fleet_rules import known_precisions
from twofold.search.fleet_space import FleetSpace, make_space
from twofold.search.levers import device_counts, make_levers, round_counts_above
from twofold.search.objective import Limits
from twofold.search.sweep import TOO_BIG, price_space, priced_chunks
from twofold.units import format_bytes

MOST_DEVICES = 2**20
"""More than that nobody is told to use."""
SEARCH_S = 3.0
"""For all kinds of change together; what is not found by then is not suggested."""
_MOST_HALVINGS = 12
_SPARE = 1.01
"""Times what is needed: enough also when it is rounded."""
_NUM_KINDS = 5
_FARTHEST_BATCH = 64
"""A global batch so many times larger or smaller is another training."""

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a plan had to keep to."""

    limit_bytes: float
    limits: Limits
    precisions: Sequence[Precision] | None = None


def nothing_fits(problem: Problem, rejected: Counter[str], wanted: Wanted) -> NegativeAnswer:
    """The answer "no", with its most frequent reasons and the changes that turn it into a yes."""
    # Memory first: the plans that it turns away break no rule.
    ranked = sorted(rejected.items(), key=lambda pair: (pair[0] != TOO_BIG, -pair[1]))
    reasons = ", ".join(f"{count:,} {rule}" for rule, count in ranked[:3])
    # Fewer devices can help where their number was the trouble, or what they cost or draw.
    fewer = TOO_BIG not in rejected or wanted.limits.grows_with_devices
    changes = list(_changes(problem, wanted, rejected, fewer=fewer))
    return NegativeAnswer(
        f"none of {rejected.total():,} plans of '{problem.model.name}' fits "
        f"{problem.pool.num_devices:,} devices of {format_bytes(wanted.limit_bytes)}: {reasons}",
        at=f"fleet '{problem.pool.name}'",
        help="; or ".join(changes) or "make the model, the sequences or the limits smaller",
    )


def machines_that_do(problem: Problem, wanted: Wanted, least: int) -> int | None:
    """The first number of machines from `least` on, of a few, on which a plan keeps all limits;
    None where none of them does, or none is found in time."""
    most = min(4 * least, MOST_DEVICES // problem.pool.node.num_accelerators)
    rounder = round_counts_above(least, problem.workload.recipe.global_batch, most)
    counts = [count for count in dict.fromkeys([least, *rounder]) if count <= most]
    return _first(counts, lambda count: _fits(_with_machines(problem, count), wanted), SEARCH_S)


def _changes(
    problem: Problem, wanted: Wanted, rejected: Counter[str], *, fewer: bool
) -> Iterator[str]:
    """The least of each kind of change that helps."""
    pool, workload = problem.pool, problem.workload
    nodes, seq, batch = pool.num_nodes, workload.seq_len, workload.recipe.global_batch

    start_s, kinds = time.perf_counter(), iter(range(1, _NUM_KINDS + 1))

    def first(values: Iterable[Value], change: Callable[[Value], Problem]) -> Value | None:
        """Each kind of change has its share of the time, and what those before it left."""
        left_s = start_s + SEARCH_S * next(kinds) / _NUM_KINDS - time.perf_counter()
        return _first(values, lambda value: _fits(change(value), wanted), left_s)

    larger = first(_with_batches(problem), lambda value: _with_work(problem, seq, value))
    if larger is not None:
        yield f"{'raise' if larger > batch else 'lower'} the global batch to {larger}"
    doublings = range(1, max(MOST_DEVICES // pool.num_devices, 1).bit_length())
    more = first(
        (nodes << power for power in doublings), lambda count: _with_machines(problem, count)
    )
    if more is not None:
        yield f"use {more * pool.node.num_accelerators} devices"
    elif problem.pool.node.link("scale-out") is None:
        yield "give scale_out.bandwidth_bytes_per_s, so that more machines can be used"
    if fewer:
        counts = device_counts(nodes, batch, fewer=True)[1:]
        less = first(counts, lambda count: _with_machines(problem, count))
        if less is not None:
            yield f"use {less * pool.node.num_accelerators} devices"
    shorter = first(
        (seq >> power for power in range(1, _MOST_HALVINGS) if seq >> power >= 2),
        lambda value: _with_work(problem, value, batch),
    )
    if shorter is not None:
        yield f"shorten seq_len to {shorter}"
    tried = wanted.precisions or ()
    narrow = _first(
        [one for one in known_precisions(problem, NARROW) if one not in tried],
        lambda one: _fits(problem, replace(wanted, precisions=(one,))),
        start_s + SEARCH_S - time.perf_counter(),
    )
    if narrow is not None:
        yield f"allow {narrow}, which is lossy"
    least = _least_bytes(problem, wanted) if TOO_BIG in rejected else None
    if least is not None:
        own = least <= problem.pool.node.accelerator.memory.usable_bytes.value
        needed = format_bytes(_SPARE * least)
        yield f"allow {needed} of each device" if own else f"use devices of {needed}"


def _least_bytes(problem: Problem, wanted: Wanted) -> float | None:
    """The least memory of a device with which a plan would fit as many of them, all else left;
    None where limits beside the memory are set, or there is no plan at all."""
    space = _smallest_space(problem, wanted)
    if wanted.limits != Limits() or space is None:
        return None
    chunks = priced_chunks(price_space(problem, space), math.inf)
    peaks = [
        float(chunk.columns.footprint.peak_bytes.min())
        for chunk, _, _ in chunks
        if chunk is not None
    ]
    return min(peaks, default=None)


def _with_batches(problem: Problem) -> list[int]:
    """Global batches that more of the devices divide, the nearest first; of the devices' larger
    divisors the nearest multiple each."""
    batch, devices = problem.workload.recipe.global_batch, problem.pool.num_devices
    shared = math.gcd(batch, devices)
    near = {
        max(round(batch / degree), 1) * degree
        for degree in divisors(devices)
        if shared < degree <= _FARTHEST_BATCH * batch
    }
    return sorted(near, key=lambda value: abs(math.log(value / batch)))


def _with_machines(problem: Problem, count: int) -> Problem:
    return replace(problem, pool=replace(problem.pool, num_nodes=count))


def _with_work(problem: Problem, seq_len: int, global_batch: int) -> Problem:
    workload = problem.workload
    changed = replace(
        workload,
        seq_len=seq_len,
        recipe=replace(workload.recipe, global_batch=global_batch),
        tokens=max(workload.tokens, seq_len * global_batch),
    )
    return make_problem(problem.model, changed, problem.pool, problem.fit, problem.date)


def _first(values: Iterable[Value], helps: Callable[[Value], bool], seconds: float) -> Value | None:
    """The first that helps, if it is found in so many seconds."""
    end_s = time.perf_counter() + seconds
    for value in values:
        if time.perf_counter() > end_s:
            return None
        if helps(value):
            return value
    return None


def _fits(problem: Problem, wanted: Wanted) -> bool:
    space = _smallest_space(problem, wanted)
    if space is None:
        return False
    chunks = priced_chunks(price_space(problem, space), wanted.limit_bytes)
    return any(
        chunk is not None and wanted.limits.kept(chunk.columns).any() for chunk, _, _ in chunks
    )


def _smallest_space(problem: Problem, wanted: Wanted) -> FleetSpace | None:
    """Of the plans those that need the least memory, where that is all that is limited; None where
    there are none."""
    levers = make_levers(
        problem,
        precisions=None if wanted.precisions is None else tuple(wanted.precisions),
        fewer_devices=True if wanted.limits.grows_with_devices else None,
    )
    if wanted.limits == Limits():
        # The smallest micro-batch needs the least memory: the others are not asked.
        levers = replace(levers, micro_batches=levers.micro_batches[:1])
    try:
        space = make_space(problem, levers)
    except InputError:
        return None
    return space if space.num_rows else None
