"""When nothing fits: the nearest change that would, found by the same search."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from twofold.errors import InputError, NegativeAnswer
from twofold.perf.fleet import Problem, make_problem
from twofold.search.fleet_space import make_levers, make_space
from twofold.search.objective import Limits
from twofold.search.sweep import price_space, priced_chunks
from twofold.units import format_bytes

_MOST_DOUBLINGS = 12


def nothing_fits(
    problem: Problem, rejected: Counter[str], limit_bytes: float, limits: Limits | None = None
) -> NegativeAnswer:
    """The answer "no", with its most frequent reasons and the changes that turn it into a yes."""
    reasons = ", ".join(f"{count} {rule}" for rule, count in rejected.most_common(3))
    devices = problem.pool.num_devices
    changes = list(_changes(problem, limit_bytes, limits or Limits()))
    return NegativeAnswer(
        f"none of {rejected.total()} plans of '{problem.model.name}' fits {devices} devices of "
        f"{format_bytes(limit_bytes)}: {reasons}",
        at=f"fleet '{problem.pool.name}'",
        help="; or ".join(changes) or "make the model, the sequences or the limits smaller",
    )


def _changes(problem: Problem, limit_bytes: float, limits: Limits) -> Iterator[str]:
    """The least of each kind of change that helps."""
    pool, workload = problem.pool, problem.workload

    def again(num_nodes: int, seq_len: int, global_batch: int) -> bool:
        recipe = replace(workload.recipe, global_batch=global_batch)
        tokens = max(workload.tokens, seq_len * global_batch)
        changed = replace(workload, seq_len=seq_len, recipe=recipe, tokens=tokens)
        return _fits(
            make_problem(
                problem.model,
                changed,
                replace(pool, num_nodes=num_nodes),
                problem.fit,
                problem.date,
            ),
            limit_bytes,
            limits,
        )

    nodes, seq, batch = pool.num_nodes, workload.seq_len, workload.recipe.global_batch
    for times in (2**power for power in range(1, _MOST_DOUBLINGS)):
        if again(nodes * times, seq, batch):
            yield f"use {pool.num_devices * times} devices"
            break
    for less in (2**power for power in range(1, _MOST_DOUBLINGS)):
        if seq // less < 2 or seq % less:
            break
        if again(nodes, seq // less, batch):
            yield f"shorten seq_len to {seq // less}"
            break
    for less in (2**power for power in range(1, _MOST_DOUBLINGS)):
        if nodes % less:
            break
        if again(nodes // less, seq, batch):
            yield f"use {pool.num_devices // less} devices"
            break
    for times in (2**power for power in range(1, _MOST_DOUBLINGS)):
        if again(nodes, seq, batch * times):
            yield f"raise the global batch to {batch * times}"
            break


def _fits(problem: Problem, limit_bytes: float, limits: Limits) -> bool:
    try:
        space = make_space(problem, make_levers(problem))
    except InputError:
        return False
    if not space.num_rows:
        return False
    chunks = priced_chunks(price_space(problem, space), limit_bytes)
    return any(chunk is not None and limits.kept(chunk.columns).any() for chunk, _ in chunks)
