"""Plans whose pools are pipeline stages: layers as unlike as the pools' speeds and memories.

Outer enumeration: order of the pools, data and tensor degree, stages in each pool, micro-batch,
recomputation. Inner programme: which contiguous layers each stage holds, exactly. All ranks of a
stage are on one pool, so that only activations cross between pools. No solver is needed: devices
of a pool are alike, so what is chosen outside are a few counts, and the inside is a dynamic
programme. (Replicas that mix pools each in its own way would need an integer programme, and a
runtime that can run them: none of the plans here can state one.)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import combinations, pairwise, permutations, product

import numpy as np
from numpy.typing import NDArray

from twofold.perf.joints import Joint
from twofold.perf.pool_exchange import gloo_exchange
from twofold.perf.schedule import in_flight
from twofold.perf.uneven_stages import StageCosts, fleet_stage_costs, local_stage_costs
from twofold.plan import Plan, Stage
from twofold.search.placement.found import Placement, PoolPart
from twofold.search.placement.question import Question
from twofold.search.placement.replicas import Replicas
from twofold.search.placement.stages import LayerSplit, split_layers, stage_table
from twofold.search.placement.whole_run import run_estimate
from twofold.search.space import divisors

Array = NDArray[np.float64]

_SCHEDULE = 1
"""1F1B, by its code."""
_MICRO_BATCHES = 8
_FEW_STAGES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """Stages in order by their pools' places, with what is the same for all of them."""

    layout: Plan
    pools: tuple[int, ...]
    micro_batches: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Piped:
    """A pipeline with its layers: (m - 1) slowest + sum, and what comes once a step. Of the stage
    that sets the pace, `steady_s` is its own work in a step and `messages_s` what it sends."""

    pipeline: Pipeline
    split: LayerSplit
    steady_s: float
    messages_s: float
    once_s: float

    @property
    def step_s(self) -> float:
        return self.split.step_s + self.once_s


class Pipelines:
    """The pipelines of a question, their stages priced once."""

    def __init__(self, question: Question, replicas: Replicas) -> None:
        self.question = question
        self.replicas = replicas
        self._costs: dict[tuple[int, Plan], StageCosts] = {}
        self.num_considered = 0

    def best(self) -> Piped | None:
        """The fastest over several pools; None where none fits.

        Pipelines are looked into in the order of what they would take if stages could divide the
        layers perfectly, by speed; once that is more than the best has, none can win.
        """
        best: Piped | None = None
        bounded = sorted((self._at_least_s(p), i, p) for i, p in enumerate(self._all()))
        self.num_considered = len(bounded)
        for at_least_s, _, pipeline in bounded:
            if best is not None and at_least_s >= best.step_s:
                break
            found = self._divide(pipeline)
            if found is not None and (best is None or found.step_s < best.step_s):
                best = found
        return best

    def _at_least_s(self, pipeline: Pipeline) -> float:
        """m L / sum_s (1 / t_s): what a layer takes does not depend on how many data ranks a
        stage has."""
        alone = replace(pipeline.layout, data_degree=1, zero_stage=0)
        rate = sum(
            pipeline.pools.count(pool) / float(self.costs(pool, alone).block_s[0])
            for pool in set(pipeline.pools)
        )
        return pipeline.micro_batches * self.question.model.layers / rate

    def costs(self, pool: int, layout: Plan) -> StageCosts:
        key = pool, layout
        if key not in self._costs:
            self._costs[key] = self._priced(pool, layout)
        return self._costs[key]

    def _priced(self, pool: int, layout: Plan) -> StageCosts:
        asked = self.question
        if not asked.local:
            return fleet_stage_costs(asked.problems[pool], layout, asked.limit_bytes)
        exchange = gloo_exchange(
            [(asked.pools[pool], layout.data_degree)], [], 4.0 * asked.parameters
        )
        return local_stage_costs(
            asked.model,
            asked.workload,
            asked.pools[pool],
            layout,
            exchange.once_s,
            asked.limit_bytes,
        )

    def _all(self) -> Iterator[Pipeline]:
        asked = self.question
        places = range(len(asked.pools))
        subsets = [s for size in places[1:] for s in combinations(places, size + 1)]
        for layout, subset in product(self._layouts(), subsets):
            each = layout.tensor_degree * layout.data_degree
            counts = [_stage_counts(asked.pools[i].num_devices // each) for i in subset]
            micros = asked.global_batch // (layout.data_degree * layout.micro_batch)
            for stages in product(*counts):
                if sum(stages) > asked.model.layers:
                    continue
                for order in permutations(range(len(subset))):
                    pools = tuple(subset[o] for o in order for _ in range(stages[o]))
                    yield Pipeline(layout=layout, pools=pools, micro_batches=micros)

    def _layouts(self) -> Iterator[Plan]:
        """Of one stage: tensor x data degree and a micro-batch that divide devices and batch."""
        batch = self.question.global_batch
        most = max(pool.num_devices for pool in self.question.pools)
        kinds = dict.fromkeys(
            replace(layout, pipeline_degree=1, zero_stage=0) for layout in self.replicas.layouts()
        )
        for kind in kinds:
            for data in divisors(batch):
                if data * kind.tensor_degree > most:
                    break
                for micro in divisors(batch // data):
                    if micro > _MICRO_BATCHES:
                        break
                    yield replace(
                        kind,
                        data_degree=data,
                        micro_batch=micro,
                        zero_stage=1 if data > 1 and not self.question.local else 0,
                    )

    def _divide(self, pipeline: Pipeline) -> Piped | None:
        """The layers of each stage. A stage's time is its own and that of sending its boundary on
        and its gradient back, as far as that is not hidden."""
        costs = [self.costs(pool, pipeline.layout) for pool in pipeline.pools]
        last = len(costs) - 1
        hops = [self._hop_s(pipeline, s, costs) for s in range(last)] + [0.0]
        sent_s = [2.0 * (1.0 - c.overlap) * hop for c, hop in zip(costs, hops, strict=True)]
        layers = self.question.model.layers
        start, end = np.indices((layers + 1, layers + 1))
        held = np.clip(end - start, 1, layers) - 1
        tables = []
        for stage, cost in enumerate(costs):
            first, final = stage == 0, stage == last
            flight = float(in_flight(_SCHEDULE, stages=last + 1.0,
                                     micro_batches=pipeline.micro_batches, virtual=1.0,
                                     stage=float(stage)))  # fmt: skip
            table = stage_table(
                cost.block_s,
                first_s=cost.first_s if first else 0.0,
                last_s=cost.last_s if final else 0.0,
                fits=cost.fits(flight, first=first, last=final)[held],
            )
            tables.append(table + sent_s[stage])
        split = split_layers(tables, pipeline.micro_batches)
        if split is None:
            return None
        once_s = max(
            float(cost.once_s[int(s == 0), int(s == last), n - 1])
            for s, (cost, n) in enumerate(zip(costs, split.layers, strict=True))
        )
        starts = np.concatenate([[0], np.cumsum(split.layers)])
        pace = max(range(last + 1), key=lambda s: tables[s][starts[s], starts[s + 1]])
        return Piped(
            pipeline=pipeline,
            split=split,
            steady_s=pipeline.micro_batches * (split.slowest_s - sent_s[pace]),
            messages_s=pipeline.micro_batches * sent_s[pace],
            once_s=once_s,
        )

    def _hop_s(self, pipeline: Pipeline, stage: int, costs: list[StageCosts]) -> float:
        """A boundary from this stage to the next, all its devices sending side by side."""
        cost, pools = costs[stage], self.question.pools
        here, there = pools[pipeline.pools[stage]], pools[pipeline.pools[stage + 1]]
        if here is there:
            link = here.node.link("scale-out") or here.node.link("scale-up")
            if link is None:
                return 0.0
            return link.latency_s.value + cost.boundary_bytes / link.bandwidth_bytes_per_s.value
        joint: Joint = self.question.joints[here.name, there.name]
        together = cost.senders * cost.boundary_bytes
        return joint.latency_s + together / joint.rate_of(cost.senders)


def piped_placement(question: Question, costs: Pipelines, piped: Piped) -> Placement:
    """The plan with its figures: of each pool the slowest and the fullest of its stages."""
    pipeline, split = piped.pipeline, piped.split
    layout, last = pipeline.layout, len(pipeline.pools) - 1
    parts, arithmetic = [], []
    for pool in dict.fromkeys(pipeline.pools):
        cost = costs.costs(pool, layout)
        stages = [s for s, other in enumerate(pipeline.pools) if other == pool]
        busy, peaks = [], []
        for s in stages:
            layers, first, final = split.layers[s], s == 0, s == last
            seconds = float(cost.block_s[:layers].sum())
            seconds += first * cost.first_s + final * cost.last_s
            busy.append(seconds * pipeline.micro_batches)
            flight = min(pipeline.micro_batches, last + 1 - s)
            peaks.append(float(cost.peak_at(flight, first=first, last=final)[layers - 1]))
        each = layout.data_degree * layout.tensor_degree
        parts.append(
            PoolPart(
                pool=question.pools[pool].name,
                devices=each * len(stages),
                ranks=layout.data_degree,
                sequences=((layout.data_degree, question.global_batch // layout.data_degree),),
                layers=tuple(split.layers[s] for s in stages),
                busy_s=max(busy),
                peak_bytes=max(peaks),
                usable_bytes=cost.usable_bytes,
            )
        )
        arithmetic.append(cost.arithmetic_fraction)
    step_parts = {
        "slowest stage": piped.steady_s,
        "pipeline messages": piped.messages_s,
        "pipeline bubble": split.step_s - piped.steady_s - piped.messages_s,
        "optimizer": piped.once_s,
    }
    half_width = max(costs.costs(p, layout).half_width for p in pipeline.pools)
    joints = [question.joints[a.pool, b.pool].how for a, b in pairwise(parts)]
    plan = replace(
        layout,
        pool=parts[0].pool,
        pipeline_degree=last + 1,
        stages=tuple(
            Stage(pool=question.pools[pool].name, layers=layers)
            for pool, layers in zip(pipeline.pools, split.layers, strict=True)
        ),
    )
    return Placement(
        kind="uneven stages",
        plan=plan,
        estimate=run_estimate(
            question,
            parts,
            step_parts,
            half_width,
            max(costs.costs(p, layout).startup_s for p in pipeline.pools),
            arithmetic,
        ),
        parts=tuple(parts),
        messages_s=piped.messages_s,
        half_width=half_width,
        how="; ".join(dict.fromkeys(joints)),
    )


def _stage_counts(most: int) -> tuple[int, ...]:
    """Stages that a pool's devices may make: any few, or all."""
    return tuple(dict.fromkeys([*range(1, min(most, _FEW_STAGES) + 1), most])) if most else ()
