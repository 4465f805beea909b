"""When nothing fits: the nearest change that would, found by the same search."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from twofold.errors import InputError, NegativeAnswer
from twofold.perf.fleet import Problem, make_problem
from twofold.perf.plans import NARROW
from twofold.plan import Precision
from twofold.search.fleet_rules import known_precisions
from twofold.search.fleet_space import make_space
from twofold.search.levers import make_levers, rounder_count
from twofold.search.objective import Limits
from twofold.search.sweep import TOO_BIG, price_space, priced_chunks
from twofold.units import format_bytes

MOST_DEVICES = 2**20
"""More than that nobody is told to use."""
_MOST_HALVINGS = 12
_ONE_BY_ONE = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a plan had to keep to."""

    limit_bytes: float
    limits: Limits
    precisions: Sequence[Precision] | None = None


def nothing_fits(problem: Problem, rejected: Counter[str], wanted: Wanted) -> NegativeAnswer:
    """The answer "no", with its most frequent reasons and the changes that turn it into a yes."""
    reasons = ", ".join(f"{count} {rule}" for rule, count in rejected.most_common(3))
    # Fewer devices can help where their number was the trouble, or what they cost or draw.
    fewer = TOO_BIG not in rejected or wanted.limits.grows_with_devices
    changes = list(_changes(problem, wanted, fewer=fewer))
    return NegativeAnswer(
        f"none of {rejected.total()} plans of '{problem.model.name}' fits "
        f"{problem.pool.num_devices} devices of {format_bytes(wanted.limit_bytes)}: {reasons}",
        at=f"fleet '{problem.pool.name}'",
        help="; or ".join(changes) or "make the model, the sequences or the limits smaller",
    )


def _changes(problem: Problem, wanted: Wanted, *, fewer: bool) -> Iterator[str]:
    """The least of each kind of change that helps."""
    pool, workload = problem.pool, problem.workload
    nodes, seq, batch = pool.num_nodes, workload.seq_len, workload.recipe.global_batch

    def helps(num_nodes: int = nodes, seq_len: int = seq, global_batch: int = batch) -> bool:
        recipe = replace(workload.recipe, global_batch=global_batch)
        tokens = max(workload.tokens, seq_len * global_batch)
        changed = make_problem(
            problem.model,
            replace(workload, seq_len=seq_len, recipe=recipe, tokens=tokens),
            replace(pool, num_nodes=num_nodes),
            problem.fit,
            problem.date,
        )
        return _fits(changed, wanted)

    times = 2
    while pool.num_devices * times <= MOST_DEVICES:
        if helps(num_nodes=nodes * times):
            yield f"use {pool.num_devices * times} devices"
            break
        times *= 2
    if fewer:
        counts = {*range(max(nodes - _ONE_BY_ONE, 1), nodes), *(1 << p for p in range(20))}
        counts.add(rounder_count(nodes))
        for count in sorted((n for n in counts if n < nodes), reverse=True):
            if helps(num_nodes=count):
                yield f"use {count * pool.node.num_accelerators} devices"
                break
    for shorter in (seq >> power for power in range(1, _MOST_HALVINGS)):
        if shorter < 2:
            break
        if helps(seq_len=shorter):
            yield f"shorten seq_len to {shorter}"
            break
    for larger in (batch << power for power in range(1, _MOST_HALVINGS)):
        if helps(global_batch=larger):
            yield f"raise the global batch to {larger}"
            break
    for precision in known_precisions(problem, NARROW):
        tried = wanted.precisions or ()
        if precision not in tried and _fits(problem, replace(wanted, precisions=(precision,))):
            yield f"allow {precision}, which is lossy"
            break


def _fits(problem: Problem, wanted: Wanted) -> bool:
    precisions = None if wanted.precisions is None else tuple(wanted.precisions)
    try:
        space = make_space(problem, make_levers(problem, precisions=precisions))
    except InputError:
        return False
    if not space.num_rows:
        return False
    chunks = priced_chunks(price_space(problem, space), wanted.limit_bytes)
    return any(chunk is not None and wanted.limits.kept(chunk.columns).any() for chunk, _ in chunks)
