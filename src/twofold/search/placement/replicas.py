"""How one data rank may be laid out on each pool, and what it takes there.

Degrees, sharding, recomputation and precision are one choice for all pools of a plan: the
runtime has them so. What differs by pool is the share. Catalog pools are priced by the fleet's
physics, processes on this machine by its measured curves.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import product

import numpy as np

from twofold.perf.plans import table_of
from twofold.perf.uneven import RankCosts, fleet_rank_costs, local_rank_costs
from twofold.plan import Plan, Recompute
from twofold.search.fleet_rules import RULES, scale_up_domain
from twofold.search.placement.question import Question
from twofold.search.space import legal_plans

MOST_MICRO_BATCH = 48
"""Sequences of a micro-batch: more are no faster, and seldom fit."""
_TENSOR = (1, 2, 4, 8)
_PIPELINE = (1, 2, 4, 8)
_RECOMPUTES: tuple[Recompute, ...] = ("none", "full")


class Replicas:
    """The layouts of data ranks of a question, and their costs, each priced once."""

    def __init__(self, question: Question) -> None:
        self.question = question
        self._costs: dict[tuple[int, Plan, int], RankCosts] = {}

    @cached_property
    def most(self) -> int:
        return min(MOST_MICRO_BATCH, self.question.global_batch)

    def layouts(self) -> Iterator[Plan]:
        """Plans of one data rank and one sequence that the model allows, to be shared out."""
        if self.question.local:
            yield from self._local_layouts
        else:
            yield from self._fleet_layouts()

    def price(self, wanted: Iterable[tuple[int, Plan, int]]) -> None:
        """Price ranks (pool, layout, ranks of all pools together), all of a pool at once."""
        by_pool: dict[int, list[tuple[int, Plan, int]]] = {}
        for key in dict.fromkeys(map(self._key, wanted)):
            if key not in self._costs:
                by_pool.setdefault(key[0], []).append(key)
        for pool, keys in by_pool.items():
            self._costs.update(zip(keys, self._priced(pool, keys), strict=True))

    def costs(self, pool: int, layout: Plan, ranks: int) -> RankCosts:
        """Of a rank of a pool, where all pools together have so many."""
        key = self._key((pool, layout, ranks))
        if key not in self._costs:
            self.price([key])
        return self._costs[key]

    def _key(self, wanted: tuple[int, Plan, int]) -> tuple[int, Plan, int]:
        pool, layout, ranks = wanted
        return pool, layout, 1 if self.question.local else ranks

    def _priced(self, pool: int, keys: Sequence[tuple[int, Plan, int]]) -> list[RankCosts]:
        asked = self.question
        if not asked.local:
            plans = [replace(layout, data_degree=ranks) for _, layout, ranks in keys]
            return fleet_rank_costs(asked.problems[pool], plans, self.most, asked.limit_bytes)
        sizes = range(1, self.most + 1)
        return [
            local_rank_costs(
                asked.model,
                asked.workload,
                asked.pools[pool],
                [replace(layout, micro_batch=size) for size in sizes],
                asked.limit_bytes,
            )
            for _, layout, _ in keys
        ]

    @cached_property
    def _local_layouts(self) -> tuple[Plan, ...]:
        """One thread as eager PyTorch runs it, or as many as the quota has whole cores; of each
        recompute level the levers that are fastest at a middling micro-batch. They change a rank's
        speed, not what is shared out. Weights are replicated."""
        asked = self.question
        cores = max(p.cpu_cores.value if p.cpu_cores else p.node.accelerator.threads
                    for p in asked.pools)  # fmt: skip
        threads = max(1, int(np.floor(cores)))
        plans, _ = legal_plans(asked.workload, asked.pools[0])
        kinds = dict.fromkeys(
            replace(plan, micro_batch=1)
            for plan in plans
            if plan.threads == threads
            and not plan.compile
            and plan.precision in (asked.precisions or (plan.precision,))
        )
        middling = max(1, asked.global_batch // (2 * sum(p.num_devices for p in asked.pools)))
        best: dict[Recompute, tuple[float, Plan]] = {}
        for plan in kinds:
            costs = local_rank_costs(
                asked.model,
                asked.workload,
                asked.pools[0],
                [replace(plan, micro_batch=size) for size in (1, middling + 1)],
                asked.limit_bytes,
            )
            seconds = float(sum(v[-1] for v in costs.each_s.values()))
            seconds += float(sum(v[-1] for v in costs.once_s.values()))
            if plan.recompute not in best or seconds < best[plan.recompute][0]:
                best[plan.recompute] = seconds, plan
        return tuple(plan for _, plan in best.values())

    def _fleet_layouts(self) -> Iterator[Plan]:
        asked = self.question
        assert asked.precision is not None
        domain = min(scale_up_domain(problem) for problem in asked.problems)
        for tensor, pipeline, zero, recompute in product(
            _TENSOR, _PIPELINE, (0, 1, 3), _RECOMPUTES
        ):
            plan = Plan(
                micro_batch=1,
                tensor_degree=tensor,
                pipeline_degree=pipeline,
                zero_stage=zero,  # type: ignore[arg-type]
                sequence_parallel=tensor > 1,
                recompute=recompute,
                precision=asked.precision,
                optimizer_kernel="fused",
            )
            if tensor <= domain and self.allowed(plan):
                yield plan

    def allowed(self, plan: Plan) -> bool:
        """Whether the model can be divided so: the rules that shares and micro-batches do not
        touch."""
        table = table_of([plan])
        columns = {name: getattr(table, name) for name in type(table).__dataclass_fields__}
        return not any(
            np.any(rule.broken(self.question.problems[0], columns))
            for rule in RULES
            if rule.stage in ("degrees", "sharding") and rule.lever != "data_degree"
        )


def arithmetic_fraction(parts_s: dict[str, float]) -> float:
    """Of a rank's own time, what its products take."""
    named = ("gemm", "attention", "recompute")
    return sum(parts_s.get(name, 0.0) for name in named) / sum(parts_s.values())
