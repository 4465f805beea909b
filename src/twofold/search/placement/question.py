"""What is asked: a model trained on the pools of one fleet, and whether that can be planned."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np

from twofold.errors import InputError
from twofold.fleet import Fleet, Pool
from twofold.model import Model, num_parameters
from twofold.perf.fleet import Problem, make_problem
from twofold.perf.joints import Joint, best_ring, joint_of, ring_hops
from twofold.perf.speeds import NARROW_KEYS, Efficiencies
from twofold.plan import Precision
from twofold.search.fleet_rules import check_network
from twofold.workload import Train

MOST_POOLS = 6
"""Subsets and orders of pools are all tried; more pools than that is a slip, or a grid."""
_PRECISIONS: tuple[Precision, ...] = ("bf16", "fp16", "fp32")


@dataclass(frozen=True, kw_only=True)
class Question:
    """A model and workload on several pools. `local`: they are processes on a calibrated
    processor, priced by measured curves; else catalog pools, priced by the fleet's physics, all in
    one `precision`. `precisions` are those that were asked for."""

    model: Model
    workload: Train
    fleet: Fleet
    fit: Efficiencies
    date: str
    limit_bytes: float = np.inf
    precision: Precision | None = None
    precisions: tuple[Precision, ...] | None = None

    @property
    def pools(self) -> tuple[Pool, ...]:
        return self.fleet.pools

    @property
    def global_batch(self) -> int:
        return self.workload.recipe.global_batch

    @property
    def local(self) -> bool:
        return is_calibrated(self.pools[0])

    @cached_property
    def parameters(self) -> float:
        return float(num_parameters(self.model))

    @cached_property
    def problems(self) -> tuple[Problem, ...]:
        """Of catalog pools."""
        return tuple(
            make_problem(self.model, self.workload, pool, self.fit, self.date)
            for pool in self.pools
        )

    @cached_property
    def joints(self) -> dict[tuple[str, str], Joint]:
        """Both ways between every two pools."""
        pairs = {
            (a.name, b.name): joint_of(self.fleet, a, b, self.fit)
            for a, b in combinations(self.pools, 2)
        }
        return pairs | {(b, a): joint for (a, b), joint in pairs.items()}

    def ring(self, subset: tuple[int, ...]) -> tuple[tuple[int, ...], list[Joint]]:
        """The pools of a subset in the best order round a ring, and its hops."""
        names = [self.pools[i].name for i in subset]
        rates = np.array(
            [[np.inf if a == b else self.joints[a, b].bytes_per_s for b in names] for a in names]
        )
        order = best_ring(len(subset), rates)
        hops = [self.joints[names[i], names[j]] for i, j in ring_hops(order)]
        return tuple(subset[i] for i in order), hops


def is_calibrated(pool: Pool) -> bool:
    return pool.node.accelerator.curves is not None


def make_question(
    model: Model,
    workload: Train,
    fleet: Fleet,
    fit: Efficiencies,
    date: str,
    *,
    limit_bytes: float | None = None,
    precisions: tuple[Precision, ...] | None = None,
) -> Question:
    """InputError for what the pools cannot do together, by name."""
    pools = fleet.pools
    if len(pools) > MOST_POOLS:
        raise InputError(
            f"{len(pools)} unlike pools",
            at=f"fleet '{fleet.name}'",
            help=f"at most {MOST_POOLS} are planned for together: join those that are alike",
        )
    if len({is_calibrated(pool) for pool in pools}) > 1:
        raise InputError(
            "calibrated processors and machines of the catalog in one fleet: their speeds come "
            "from different physics",
            at=f"fleet '{fleet.name}'",
            help="plan for the one kind, then for the other",
        )
    question = Question(
        model=model,
        workload=workload,
        fleet=fleet,
        fit=fit,
        date=date,
        limit_bytes=np.inf if limit_bytes is None else limit_bytes,
        precision=None if is_calibrated(pools[0]) else _common_precision(pools, precisions),
        precisions=precisions,
    )
    if workload.recipe.global_batch < 2:
        raise InputError(
            "one sequence a step cannot be shared among pools",
            at="--global-batch",
            help="use a larger global batch",
        )
    if not question.local:
        for problem in question.problems:
            check_network(problem)
    assert question.joints is not None
    return question


def _common_precision(
    pools: tuple[Pool, ...], precisions: tuple[Precision, ...] | None
) -> Precision:
    """The first that every device has a figure for."""
    for precision in precisions or _PRECISIONS:
        keys = NARROW_KEYS[precision]
        if all(any(k in pool.node.accelerator.flop_per_s for k in keys) for pool in pools):
            return precision
    has = "; ".join(
        f"{pool.name}: {', '.join(pool.node.accelerator.flop_per_s) or 'none'}" for pool in pools
    )
    raise InputError(
        "the pools have no matrix rate in common that is known",
        at="--precision",
        help=f"name one that all have ({has}), or give the figure in a fleet file",
    )
