"""The legal space of plans on one pool: every lever's values, the rules, and what they reject.

A plan is a *layout* (degrees, experts, sharding, offload: who holds what) and an *order* (micro-
batch, schedule, sequence parallelism, precision: how a step runs). Both are small tables; which
orders a layout may have is a range of rows, so millions of plans are two integers each and are
never all in memory. Values that cannot exist are not counted (a degree that does not multiply to
the devices, chunks that do not divide a stage); legal-looking ones that break a rule are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from twofold.perf.fleet import Problem
from twofold.perf.plans import OFFLOADS, PRECISIONS, RECOMPUTES, SCHEDULES, PlanTable
from twofold.perf.speeds import peak_flop_per_s
from twofold.plan import Schedule
from twofold.search.factors import divisors, factorisations
from twofold.search.fleet_rules import (
    RULES,
    Stage,
    check_network,
    known_precisions,
    scale_up_domain,
)
from twofold.search.levers import Levers

Integers = NDArray[np.int64]

Value = TypeVar("Value")

RECOMPUTE_LEVELS = 2
"""None and all layers. The least number that fits is a third where it is neither."""

_SINGLE: tuple[tuple[Schedule, int], ...] = (("1f1b", 1),)
_PIPELINED: tuple[tuple[Schedule, int], ...] = (("1f1b", 1), ("gpipe", 1), ("zb-h1", 1))
_DEGREES = ("data", "tensor", "context", "pipeline")
_ORDER_LEVERS = ("micro_batch", "schedule", "virtual", "sequence_parallel", "precision")


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetSpace:
    """`layouts` and `orders` are columns by lever; both have the degrees. Layout l has the orders
    from `first[l]` on, `count[l]` of them; each is a plan without recomputation and one with all
    of it. `rejected` counts plans by the rule they break."""

    layouts: dict[str, Integers]
    orders: dict[str, Integers]
    first: Integers
    count: Integers
    rejected: Counter[str]

    @property
    def num_rows(self) -> int:
        """Pairs of layout and order."""
        return int(self.count.sum())

    def plans(self, layout: Integers, order: Integers, recomputed_layers: Integers) -> PlanTable:
        """Rows as a table of plans, by how many layers of a stage each recomputes."""
        zero = np.zeros(len(layout), dtype=np.int64)
        full = RECOMPUTES.index("full") + zero
        none = RECOMPUTES.index("none") + zero
        columns = {name: column[layout] for name, column in self.layouts.items()}
        columns |= {name: column[order] for name, column in self.orders.items()}
        return PlanTable(
            **columns,
            attention=zero,
            recompute=np.where(recomputed_layers > 0, full, none),
            recomputed_layers=recomputed_layers,
        )


def make_space(problem: Problem, levers: Levers) -> FleetSpace:
    """Every legal pair of layout and order. InputError where the pool cannot run as a whole."""
    check_network(problem)
    return _Maker(problem, levers).make()


class _Maker:
    """Works through the levers one after the other; `weight` is how many plans a row stands for,
    counting the levers still to come."""

    def __init__(self, problem: Problem, levers: Levers) -> None:
        self.problem, self.levers = problem, levers
        self.rejected: Counter[str] = Counter()
        self.precisions = known_precisions(problem, levers.precisions)
        if not self.precisions:
            peak_flop_per_s(problem.pool.node.accelerator, levers.precisions[0])
        self.domain = scale_up_domain(problem)

    def make(self) -> FleetSpace:
        degrees = self._degrees()
        layouts = self._sharded(self._with_experts(degrees))
        if not len(layouts["data"]):
            return FleetSpace(
                layouts=layouts,
                orders={},
                first=layouts["data"],
                count=layouts["data"],
                rejected=+self.rejected,
            )
        orders, first, count = self._orders(layouts)
        layouts.pop("weight")
        kept = count > 0
        return FleetSpace(
            layouts={name: column[kept] for name, column in layouts.items()},
            orders=orders,
            first=first[kept],
            count=count[kept],
            rejected=+self.rejected,
        )

    def _kept(self, columns: dict[str, Integers], stage: Stage) -> dict[str, Integers]:
        """The rows that keep the stage's rules; the others' plans are counted."""
        for rule in RULES:
            if rule.stage != stage:
                continue
            broken = rule.broken(self.problem, columns)
            if broken.any():
                self.rejected[rule.name] += int(columns["weight"][broken].sum())
                columns = {name: column[~broken] for name, column in columns.items()}
        return columns

    def _degrees(self) -> dict[str, Integers]:
        rows = [row for count in self.levers.device_counts for row in factorisations(count)]
        table = np.array(rows, dtype=np.int64).T
        columns = dict(zip(_DEGREES, table, strict=True))
        columns["weight"] = self._num_plans(columns)
        return self._kept(columns, "degrees")

    def _num_plans(self, columns: dict[str, Integers]) -> Integers:
        """How many plans there are of each tuple of degrees."""
        tensor, pipeline = columns["tensor"], columns["pipeline"]
        ranks = columns["data"] * columns["context"]
        experts = _each((tensor,), lambda t: len(self._expert_options(t)))
        shards = _each((ranks, tensor), lambda r, t: len(self._shard_options(r, t)))
        orders = _each((tensor, pipeline), self._num_orders)
        return np.multiply(np.multiply(experts, shards), orders) * len(self.levers.offloads)

    def _num_orders(self, tensor: int, pipeline: int) -> int:
        return RECOMPUTE_LEVELS * prod(
            (
                len(self.levers.micro_batches),
                len(self._schedules(pipeline)),
                1 if tensor == 1 else 2,
                len(self.levers.precisions),
            )
        )

    def _schedules(self, pipeline: int) -> tuple[tuple[Schedule, int], ...]:
        if pipeline == 1:
            return _SINGLE
        stage_layers = -(-self.problem.model.layers // pipeline)
        chunks = [v for v in range(2, stage_layers + 1) if stage_layers % v == 0]
        return _PIPELINED + tuple(("interleaved", v) for v in chunks)

    def _expert_options(self, tensor: int) -> list[tuple[int, int]]:
        experts = self.problem.model.experts
        if experts is None:
            return [(1, 1)]
        inner = (1,) if tensor == 1 else (1, tensor)
        return [(e, t) for e in divisors(experts.count) for t in inner]

    def _shard_options(self, ranks: int, tensor: int) -> list[tuple[int, int]]:
        """(stage, ranks): over all of them (0), and over those of a scale-up domain (HSDP)."""
        if ranks == 1:
            return [(0, 0)]
        inside = [d for d in divisors(ranks) if d <= max(self.domain // tensor, 1)]
        groups = divisors(ranks) if self.levers.every_shard else inside[-1:]
        hybrid = [group for group in groups if 1 < group < ranks]
        return [(0, 0)] + [(stage, shard) for stage in (1, 2, 3) for shard in (0, *hybrid)]

    def _with_experts(self, columns: dict[str, Integers]) -> dict[str, Integers]:
        options = _each((columns["tensor"],), self._expert_options)
        return self._kept(_spread(columns, options, ("expert", "expert_tensor")), "experts")

    def _sharded(self, columns: dict[str, Integers]) -> dict[str, Integers]:
        ranks = columns["data"] * columns["context"]
        options = _each((ranks, columns["tensor"]), self._shard_options)
        columns = self._kept(_spread(columns, options, ("zero_stage", "shard")), "sharding")
        offloads = [[(OFFLOADS.index(o),) for o in self.levers.offloads]] * len(columns["data"])
        return _spread(columns, offloads, ("offload",))

    def _orders(
        self, layouts: dict[str, Integers]
    ) -> tuple[dict[str, Integers], Integers, Integers]:
        """The orders of every kind of layout, and which range of them each layout has."""
        levers = (*_DEGREES, "zero_stage")
        kinds, kind = distinct_rows(layouts, levers)
        numbers = np.bincount(kind, minlength=len(kinds["data"]))
        kinds["kind"] = np.arange(len(numbers))
        kinds["weight"] = numbers * RECOMPUTE_LEVELS
        parts = []
        for pipeline in np.unique(kinds["pipeline"]):
            for several in (False, True):
                chosen = (kinds["pipeline"] == pipeline) & ((kinds["tensor"] > 1) == several)
                alike = {name: column[chosen] for name, column in kinds.items()}
                parts.append(self._orders_of(alike, int(pipeline), sequence=several))
        names = (*_ORDER_LEVERS, *_DEGREES, "kind")
        orders = {name: np.concatenate([part[name] for part in parts]) for name in names}
        of_kind = orders.pop("kind")
        count = np.bincount(of_kind, minlength=len(numbers))
        first = np.zeros_like(count)
        starts = np.flatnonzero(np.diff(of_kind, prepend=-1))
        first[of_kind[starts]] = starts
        return orders, first[kind], count[kind]

    def _orders_of(
        self, kinds: dict[str, Integers], pipeline: int, *, sequence: bool
    ) -> dict[str, Integers]:
        """Every order of every kind, kinds one after the other."""
        codes = np.array([(SCHEDULES.index(s), v) for s, v in self._schedules(pipeline)])
        precision, schedule, split, micro = (
            column.reshape(-1)
            for column in np.meshgrid(
                [PRECISIONS.index(p) for p in self.precisions],
                np.arange(len(codes)),
                [0, 1] if sequence else [0],
                self.levers.micro_batches,
                indexing="ij",
            )
        )
        levers = (micro, codes[schedule, 0], codes[schedule, 1], split, precision)
        num_kinds = len(kinds["data"])
        columns = {n: np.tile(v, num_kinds) for n, v in zip(_ORDER_LEVERS, levers, strict=True)}
        columns |= {name: np.repeat(column, micro.size) for name, column in kinds.items()}
        refused = len(self.levers.precisions) - len(self.precisions)
        if refused:
            self.rejected["precision not known on the device"] += (
                int(columns["weight"].sum()) // len(self.precisions) * refused
            )
        return self._kept(columns, "order")


def _each(columns: tuple[Integers, ...], function: Callable[..., Value]) -> list[Value]:
    """A function of each row, called once for equal ones."""
    rows = list(zip(*(column.tolist() for column in columns), strict=True))
    values = {row: function(*row) for row in set(rows)}
    return [values[row] for row in rows]


def _spread(
    columns: dict[str, Integers], options: list[Any], names: tuple[str, ...]
) -> dict[str, Integers]:
    """Every row once for each of its options, which become columns; its weight is shared out."""
    counts = np.array([len(option) for option in options], dtype=np.int64)
    spread = {name: np.repeat(column, counts) for name, column in columns.items()}
    spread["weight"] = spread["weight"] // np.repeat(counts, counts)
    chosen = np.array([value for option in options for value in option], dtype=np.int64)
    chosen = chosen.reshape(-1, len(names))
    return spread | {name: chosen[:, place] for place, name in enumerate(names)}


def distinct_rows(
    levers: dict[str, Integers], names: tuple[str, ...]
) -> tuple[dict[str, Integers], Integers]:
    """The combinations of these levers that occur, and which of them each row has."""
    code = np.zeros(len(levers[names[0]]), dtype=np.int64)
    for name in names:
        code = code * (int(levers[name].max()) + 1) + levers[name]
    _, first, index = np.unique(code, return_index=True, return_inverse=True)
    return {name: levers[name][first] for name in names}, index.reshape(-1).astype(np.int64)
