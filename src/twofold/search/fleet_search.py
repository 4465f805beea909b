"""The best plans of a problem: exact optima of the model, over the whole legal space."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from twofold.errors import NegativeAnswer
from twofold.model import num_parameters
from twofold.outcome import Estimate
from twofold.perf.fleet import STARTUP_S, FleetColumns, Problem, estimate_plans
from twofold.perf.plans import plan_at, table_of
from twofold.plan import Plan, Precision
from twofold.search.baselines import baseline_plans as baseline_plans
from twofold.search.binding import arithmetic_s
from twofold.search.fleet_space import make_space
from twofold.search.floors import least_usd
from twofold.search.levers import make_levers
from twofold.search.nearest import Wanted, nothing_fits
from twofold.search.objective import Limits, Objective, value_of
from twofold.search.sweep import TOO_BIG, Chunk, Worth, price_space, priced_chunks

Array = NDArray[np.float64]
Integers = NDArray[np.int64]

_KIND_LEVERS = ("tensor", "context", "pipeline", "expert", "expert_tensor")


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetShortlist:
    """Plans that differ in kind (their degrees, whether weights are sharded, precision), the
    best of each kind, best first. `rejected` counts plans by the rule they break; with
    `num_fitting` it adds up to `num_considered`. `rate_per_s` are plans that fit decided on per
    second of wall time: priced in full, or left out since the least they can take is too much."""

    objective: Objective
    ranked: tuple[tuple[Plan, Estimate], ...]
    num_considered: int
    num_fitting: int
    rejected: dict[str, int]
    memory_limit_bytes: float
    seconds: float
    rate_per_s: float


def best_plans(
    problem: Problem,
    *,
    objective: Objective = "time",
    limit: int = 5,
    deadline_s: float | None = None,
    budget_usd: float | None = None,
    power_cap_w: float | None = None,
    precisions: Sequence[Precision] | None = None,
    memory_limit_bytes: float | None = None,
    fewer_devices: bool | None = None,
) -> FleetShortlist:
    """The plans with the least time, cost, energy or carbon, no plan left out.

    `fewer_devices` tries parts of the pool too. By default it does where they may be better: where
    the objective is not time or what is used has a limit; and for the least time where all
    devices are an awkward number, where nothing fits them, or where arithmetic is less than half
    of their time, so that half of them may be faster. NegativeAnswer where nothing fits, with the
    nearest change that would.
    """
    start_s = time.perf_counter()
    limits = Limits(deadline_s=deadline_s, budget_usd=budget_usd, power_cap_w=power_cap_w)
    wanted = _wanted(problem, memory_limit_bytes, limits, precisions)
    fewer = fewer_devices
    if fewer is None and (objective != "time" or limits.grows_with_devices):
        fewer = True
    found = _search(problem, objective, limit, wanted, fewer)
    if fewer is None and not found.ranked:
        found = _search(problem, objective, limit, wanted, True)
    elif fewer is None:
        found = _with_halves(problem, objective, limit, wanted, found)
    if not found.ranked:
        raise nothing_fits(problem, Counter(found.rejected), wanted)
    seconds = time.perf_counter() - start_s
    return replace(found, seconds=seconds, rate_per_s=found.num_fitting / seconds)


def _with_halves(
    problem: Problem, objective: Objective, limit: int, wanted: Wanted, found: FleetShortlist
) -> FleetShortlist:
    """The same with half of the best plan's devices, and again, for as long as that is faster.
    Where arithmetic is half of the step it cannot be: each device would have twice of it."""
    while True:
        plan, estimate = found.ranked[0]
        devices, outcome = int(table_of([plan]).devices[0]), estimate.outcome
        if devices % 2 or 2.0 * arithmetic_s(outcome) >= outcome.step_time_s:
            return found
        bar = _last_of([pair[1].outcome.time_s for pair in found.ranked], limit)
        half = _search(problem, objective, limit, wanted, True, (devices // 2,), bar)
        both = sorted((*found.ranked, *half.ranked), key=lambda pair: pair[1].outcome.time_s)
        found = replace(
            found,
            ranked=tuple(both[:limit]),
            num_considered=found.num_considered + half.num_considered,
            num_fitting=found.num_fitting + half.num_fitting,
            rejected=dict((Counter(found.rejected) + Counter(half.rejected)).most_common()),
        )
        if found.ranked[0][0] == plan:
            return found


def _search(
    problem: Problem,
    objective: Objective,
    limit: int,
    wanted: Wanted,
    fewer: bool | None,
    device_counts: tuple[int, ...] | None = None,
    bar: float = math.inf,
) -> FleetShortlist:
    """One pass over a space; nothing is ranked where nothing fits, or nothing is below the bar."""
    start_s = time.perf_counter()
    swept = _Sweep(problem, wanted, fewer, device_counts)
    leaders = _Leaders(swept, lambda columns: value_of(columns, objective))
    lowest = bar

    def worth(time_s: Array, devices: Array) -> NDArray[np.bool_]:
        least = time_s if objective == "time" else least_usd(problem.pool, time_s, devices)
        return np.asarray(least <= lowest)

    # Of a limit it is told how many plans break it, so that all must be priced.
    bounded = objective in ("time", "cost") and wanted.limits == Limits()
    for chunk in swept.chunks(worth if bounded else None):
        leaders.see(chunk)
        lowest = min(bar, _last_of(leaders.scores, limit))
    seconds = time.perf_counter() - start_s
    rejected = swept.rejected + leaders.rejected
    num_fitting = swept.num_fitting - leaders.rejected.total()
    return FleetShortlist(
        objective=objective,
        ranked=_estimated(problem, leaders.plans(limit)),
        num_considered=num_fitting + rejected.total(),
        num_fitting=num_fitting,
        rejected=dict(rejected.most_common()),
        memory_limit_bytes=wanted.limit_bytes,
        seconds=seconds,
        rate_per_s=swept.num_fitting / seconds,
    )


def _last_of(scores: Sequence[float], limit: int) -> float:
    """The last of so many that are ranked; infinite while there are fewer."""
    return math.inf if len(scores) < limit else sorted(scores)[limit - 1]


def pareto(
    problem: Problem,
    x: Objective = "time",
    y: Objective = "cost",
    *,
    precisions: Sequence[Precision] | None = None,
    memory_limit_bytes: float | None = None,
    fewer_devices: bool = True,
) -> tuple[tuple[Plan, Estimate], ...]:
    """The plans that none beats in both, fastest (least x) first."""
    wanted = _wanted(problem, memory_limit_bytes, Limits(), precisions)
    swept = _Sweep(problem, wanted, fewer_devices)
    front = np.empty((5, 0))
    for chunk in swept.chunks():
        columns = chunk.columns
        rows = np.stack([value_of(columns, x), value_of(columns, y), *_rows(chunk)])
        front = _undominated(np.concatenate([front, rows], axis=1))
    if not swept.num_fitting:
        raise nothing_fits(problem, swept.rejected, swept.wanted)
    layout, order, recomputed = front[2:].astype(np.int64)
    table = swept.space.plans(layout, order, recomputed)
    return _estimated(problem, [plan_at(table, i, problem.pool.name) for i in range(len(table))])


def by_date(problem: Problem, seconds: float) -> tuple[int, Plan, Estimate]:
    """The most tokens that training on this pool gets through in so many seconds, and how.

    Steps by then = (seconds x goodput - start-up) / step time. The estimate is of the problem
    as stated. NegativeAnswer where not one step is possible.
    """

    def negative_steps(columns: FleetColumns) -> Array:
        trained_s = seconds * columns.goodput_fraction - STARTUP_S
        return -trained_s / columns.step.step_time_s

    for fewer in (None, True):
        swept = _Sweep(problem, _wanted(problem, None, Limits(), None), fewer)
        leaders = _Leaders(swept, negative_steps)
        for chunk in swept.chunks():
            leaders.see(chunk)
        if swept.num_fitting:
            break
    if not swept.num_fitting:
        raise nothing_fits(problem, swept.rejected, swept.wanted)
    steps = math.floor(-min(score for score, _ in leaders.best.values()))
    if steps < 1:
        raise NegativeAnswer(
            f"no training step of '{problem.model.name}' ends within {seconds:.0f} s",
            at=f"fleet '{problem.pool.name}'",
            help="use a later date, more devices or a smaller model",
        )
    [(plan, estimate)] = _estimated(problem, leaders.plans(1))
    return steps * problem.workload.tokens_per_step, plan, estimate


def largest_model_by_date(problems: Sequence[Problem], seconds: float) -> tuple[Problem, Plan]:
    """Of several models, each with its workload, the one with the most parameters that is
    trained in so many seconds; NegativeAnswer where none is."""
    for problem in sorted(problems, key=lambda p: -num_parameters(p.model)):
        try:
            tokens, plan, _ = by_date(problem, seconds)
        except NegativeAnswer:
            continue
        if tokens >= problem.workload.num_steps * problem.workload.tokens_per_step:
            return problem, plan
    raise NegativeAnswer(
        f"none of {len(problems)} models is trained within {seconds:.0f} s",
        at=f"fleet '{problems[0].pool.name}'" if problems else None,
        help="use a later date, more devices, fewer tokens or a smaller model",
    )


def _wanted(
    problem: Problem,
    memory_limit_bytes: float | None,
    limits: Limits,
    precisions: Sequence[Precision] | None,
) -> Wanted:
    """A memory limit above what the device has is no limit."""
    usable_bytes = problem.pool.node.accelerator.memory.usable_bytes.value
    limit_bytes = min(usable_bytes, memory_limit_bytes or usable_bytes)
    return Wanted(limit_bytes=limit_bytes, limits=limits, precisions=precisions)


class _Sweep:
    """One pass over a space: its chunks, and what did not get into them, counted."""

    def __init__(
        self,
        problem: Problem,
        wanted: Wanted,
        fewer_devices: bool | None,
        device_counts: tuple[int, ...] | None = None,
    ) -> None:
        self.problem, self.wanted = problem, wanted
        levers = make_levers(
            problem,
            precisions=None if wanted.precisions is None else tuple(wanted.precisions),
            fewer_devices=fewer_devices,
        )
        if device_counts is not None:
            levers = replace(levers, device_counts=device_counts)
        self.space = make_space(problem, levers)
        self.rejected: Counter[str] = Counter(self.space.rejected)
        self.num_fitting = 0

    def chunks(self, worth: Worth | None = None) -> Iterator[Chunk]:
        """What fits, without what is not `worth` pricing: that is counted alone."""
        if not self.space.num_rows:
            return
        priced = price_space(self.problem, self.space)
        for chunk, num_fitting, num_too_big in priced_chunks(
            priced, self.wanted.limit_bytes, worth
        ):
            if num_too_big:
                self.rejected[TOO_BIG] += num_too_big
            self.num_fitting += num_fitting
            if chunk is not None:
                yield chunk


class _Leaders:
    """The plan with the least score of every kind, as chunks go by; the first of equals."""

    def __init__(self, swept: _Sweep, score: Callable[[FleetColumns], Array]) -> None:
        self.space, self.score, self.limits = swept.space, score, swept.wanted.limits
        self.pool = swept.problem.pool.name
        self.rejected: Counter[str] = Counter()
        self.best: dict[int, tuple[float, tuple[int, int, int]]] = {}
        layouts = self.space.layouts
        kind = layouts["zero_stage"] // 3
        for lever in _KIND_LEVERS:
            kind = kind * (int(layouts[lever].max(initial=0)) + 1) + layouts[lever]
        self.kind_of_layout = kind * 8

    def see(self, chunk: Chunk) -> None:
        score = self.score(chunk.columns)
        kept = np.ones(len(score), dtype=bool)
        for name, broken in self.limits.broken(chunk.columns):
            self.rejected[name] += int((kept & broken).sum())
            kept &= ~broken
        self.rejected = +self.rejected
        score = np.where(kept, score, np.inf)
        kind = self.kind_of_layout[chunk.layout]
        kind = kind + self.space.orders["precision"][chunk.order]
        starts = np.flatnonzero(np.diff(kind, prepend=-1))
        least = np.minimum.reduceat(score, starts)
        ends = np.append(starts[1:], len(score))
        for segment in np.argsort(least, kind="stable"):
            start, value = starts[segment], float(least[segment])
            known = self.best.get(int(kind[start]))
            if not np.isfinite(value) or (known is not None and known[0] <= value):
                continue
            row = start + int(np.argmin(score[start : ends[segment]]))
            place = tuple(int(column[row]) for column in _rows(chunk))
            self.best[int(kind[start])] = (value, place)  # type: ignore[assignment]

    @property
    def scores(self) -> list[float]:
        return [score for score, _ in self.best.values()]

    def plans(self, limit: int) -> list[Plan]:
        chosen = sorted(self.best.values())[:limit]
        if not chosen:
            return []
        places = np.array([place for _, place in chosen], dtype=np.int64).reshape(-1, 3)
        table = self.space.plans(*places.T)
        return [plan_at(table, index, self.pool) for index in range(len(chosen))]


def _rows(chunk: Chunk) -> tuple[Integers, Integers, Integers]:
    return chunk.layout, chunk.order, chunk.recomputed_layers


def _undominated(rows: Array) -> Array:
    """Of [x, y, ..] columns those that no other has both x and y at most; of equals the first."""
    rows = rows[:, np.lexsort((rows[1], rows[0]))]
    before = np.minimum.accumulate(np.concatenate([[np.inf], rows[1, :-1]]))
    return np.asarray(rows[:, rows[1] < before])


def _estimated(problem: Problem, plans: list[Plan]) -> tuple[tuple[Plan, Estimate], ...]:
    estimates = estimate_plans(problem, plans) if plans else []
    return tuple(zip(plans, estimates, strict=True))
