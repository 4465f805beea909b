"""The whole legal space of one device, priced, ranked, and cut to a few plans worth timing."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from twofold.errors import NegativeAnswer
from twofold.fleet import Fleet
from twofold.model import Model
from twofold.outcome import Estimate
from twofold.perf import TrainColumns, estimate_columns, estimate_row
from twofold.plan import Plan
from twofold.search.space import legal_plans
from twofold.units import format_bytes
from twofold.workload import Train

Array = NDArray[np.float64]

UNCERTAIN_LEVERS = ("attention", "precision", "threads", "micro_batch", "compile")
"""Levers whose effect a model can get wrong, the most informative to time first."""

_TOO_BIG = "does not fit the memory"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shortlist:
    """Plans worth timing, best predicted run first, start-up included.

    `rejected` counts the plans that were not ranked, by reason; with `num_fitting` it adds up
    to `num_considered`.
    """

    ranked: tuple[tuple[Plan, Estimate], ...]
    num_considered: int
    num_fitting: int
    rejected: dict[str, int]
    memory_limit_bytes: float


def shortlist(
    model: Model,
    workload: Train,
    fleet: Fleet,
    *,
    limit: int = 4,
    memory_limit_bytes: float | None = None,
) -> Shortlist:
    """Rank every legal plan of the fleet's first pool and keep `limit` that differ in kind.

    NegativeAnswer, with the nearest change that would fit, when no plan fits the memory.
    """
    pool = fleet.pools[0]
    accelerator = pool.node.accelerator
    usable_bytes = accelerator.memory.usable_bytes.value
    limit_bytes = min(usable_bytes, memory_limit_bytes or usable_bytes)
    plans, rejected = legal_plans(workload, pool)
    if not plans:
        raise NegativeAnswer(
            "no plan can be predicted on this machine: " + ", ".join(rejected),
            at=f"fleet '{fleet.name}'",
            help="run `twofold calibrate`",
        )
    num_refused = rejected.total()
    columns = estimate_columns(model, workload, fleet, plans)
    fits = columns.peak_memory_bytes <= limit_bytes
    if not fits.any():
        raise _nothing_fits(model, workload, fleet, plans, columns, limit_bytes)
    too_big = int((~fits).sum())
    if too_big:
        rejected[_TOO_BIG] = too_big
    order = [int(i) for i in np.argsort(columns.time_s, kind="stable") if fits[i]]
    chosen = _diverse(plans, columns, order, limit)
    return Shortlist(
        ranked=tuple(
            (plans[i], estimate_row(columns, i, model, workload, fleet, plans[i])) for i in chosen
        ),
        num_considered=len(plans) + num_refused,
        num_fitting=len(order),
        rejected=dict(rejected),
        memory_limit_bytes=limit_bytes,
    )


def _diverse(plans: list[Plan], columns: TrainColumns, order: list[int], limit: int) -> list[int]:
    """The best plan, then for each uncertain lever the best plan that sets it otherwise, as
    long as that one could still win; what is left is filled with the next best of another kind.
    """
    best = order[0]
    chosen = [best]
    could_win = columns.time_s[best] * (columns.step_time_high_s[best] / columns.step_time_s[best])
    for lever in UNCERTAIN_LEVERS:
        rival = next(
            (i for i in order if getattr(plans[i], lever) != getattr(plans[best], lever)), None
        )
        if rival is None or rival in chosen:
            continue
        optimism = columns.step_time_low_s[rival] / columns.step_time_s[rival]
        if columns.time_s[rival] * optimism <= could_win:
            chosen.append(rival)
    kinds = {_kind(plans[i]) for i in chosen}
    for i in order:
        if len(chosen) >= limit:
            break
        if _kind(plans[i]) not in kinds:
            kinds.add(_kind(plans[i]))
            chosen.append(i)
    return sorted(chosen[:limit], key=lambda i: (float(columns.time_s[i]), i))


def _kind(plan: Plan) -> tuple[object, ...]:
    return tuple(getattr(plan, lever) for lever in UNCERTAIN_LEVERS)


def _nothing_fits(
    model: Model,
    workload: Train,
    fleet: Fleet,
    plans: list[Plan],
    columns: TrainColumns,
    limit_bytes: float,
) -> NegativeAnswer:
    """What the leanest plan needs, and the longest sequence at which it would fit."""
    leanest = int(np.argmin(columns.peak_memory_bytes))
    needed = float(columns.peak_memory_bytes[leanest])
    help_text = f"allow at least {format_bytes(needed)}"
    seq_len = workload.seq_len // 2
    while seq_len >= 2:
        shorter = replace(workload, seq_len=seq_len)
        column = estimate_columns(model, shorter, fleet, [plans[leanest]])
        if column.peak_memory_bytes[0] <= limit_bytes:
            help_text += f", or shorten seq_len to {seq_len}"
            break
        seq_len //= 2
    else:
        help_text += "; shorter sequences alone do not help, so make the model smaller"
    return NegativeAnswer(
        f"none of {len(plans)} plans fits {format_bytes(limit_bytes)}: the leanest needs "
        f"{format_bytes(needed)}",
        at=f"fleet '{fleet.name}', memory",
        help=help_text,
    )
