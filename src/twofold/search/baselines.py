"""What to compare a plan with: what a newcomer would run, and the best well-known recipe."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import product

import numpy as np

from twofold.outcome import Estimate
from twofold.perf.fleet import Problem, estimate_plans, price_table
from twofold.perf.plans import table_of
from twofold.plan import Plan, Schedule
from twofold.search.factors import divisors
from twofold.search.fleet_rules import broken_rules, default_precision, scale_up_domain


def baseline_plans(problem: Problem) -> dict[str, tuple[Plan, Estimate]]:
    """ "newcomer" and "well-known", as their rules below choose them; one is missing where
    none of its plans is legal and fits."""
    found = {
        "newcomer": _fastest_that_fits(problem, _newcomer(problem)),
        "well-known": _fastest_that_fits(problem, _well_known(problem)),
    }
    return {name: pair for name, pair in found.items() if pair is not None}


def _newcomer(problem: Problem) -> Iterator[list[Plan]]:
    """Data parallelism as in the tutorials: every device a replica (DDP), and where that does
    not fit weights sharded over all of them (FSDP) with every layer recomputed; one sequence at
    a time. Where the batch has fewer sequences than there are devices, tensor ranks inside a
    domain take up the rest, then context ranks."""
    devices = problem.pool.num_devices
    domain = scale_up_domain(problem)
    precision = default_precision(problem)
    for context, tensor in product(divisors(devices), divisors(devices)):
        if tensor > domain or devices % (context * tensor):
            continue
        data = devices // (context * tensor)
        common = {"pool": problem.pool.name, "data_degree": data, "context_degree": context}
        common |= {"tensor_degree": tensor, "micro_batch": 1, "precision": precision}
        common |= {"optimizer_kernel": "fused"}
        yield [Plan(**common)]  # type: ignore[arg-type]
        yield [Plan(**common, zero_stage=3, recompute="full")]  # type: ignore[arg-type]


def _well_known(problem: Problem) -> Iterator[list[Plan]]:
    """Megatron-LM's recipe (Narayanan et al. 2021, takeaways 1 to 3; Korthikanti et al. 2023),
    tuned: tensor ranks inside a domain with sequence parallelism, then stages, interleaved or
    not; optimizer state sharded; micro-batches of 1, 2 or 4; experts over a domain or over as
    many ranks as there are experts; nothing recomputed or all. The fastest that fits; context
    ranks only where without them none does."""
    devices, domain = problem.pool.num_devices, scale_up_domain(problem)
    for context in divisors(devices):
        family = []
        rest = devices // context
        for tensor, pipeline in product(divisors(rest), divisors(rest)):
            if tensor > domain or rest % (tensor * pipeline) or pipeline > problem.model.layers:
                continue
            data = rest // (tensor * pipeline)
            for (schedule, virtual), expert, micro, recompute in product(
                _schedules(problem, pipeline),
                _expert_degrees(problem, data * context * tensor),
                (1, 2, 4),
                ("none", "full"),
            ):
                plan = Plan(
                    pool=problem.pool.name,
                    data_degree=data,
                    tensor_degree=tensor,
                    pipeline_degree=pipeline,
                    context_degree=context,
                    expert_degree=expert,
                    sequence_parallel=tensor > 1,
                    zero_stage=1,
                    schedule=schedule,
                    virtual_stages=virtual,
                    micro_batch=micro,
                    precision=default_precision(problem),
                    recompute=recompute,  # type: ignore[arg-type]
                    optimizer_kernel="fused",
                )
                family.append(plan)
        yield family


def _schedules(problem: Problem, pipeline: int) -> list[tuple[Schedule, int]]:
    """1F1B, and interleaved as coarsely and as finely as the layers allow."""
    chunks = divisors(-(-problem.model.layers // pipeline))[1:] if pipeline > 1 else []
    plain: list[tuple[Schedule, int]] = [("1f1b", 1)]
    return plain + [("interleaved", v) for v in sorted({*chunks[:1], *chunks[-1:]})]


def _expert_degrees(problem: Problem, ranks: int) -> list[int]:
    experts = problem.model.experts
    if experts is None:
        return [1]
    legal = [e for e in divisors(experts.count) if ranks % e == 0]
    near = [e for e in legal if e <= scale_up_domain(problem)]
    return sorted({near[-1], legal[-1]})


def _fastest_that_fits(
    problem: Problem, families: Iterable[list[Plan]]
) -> tuple[Plan, Estimate] | None:
    """Of the first family of which any plan is legal and fits."""
    limit_bytes = problem.pool.node.accelerator.memory.usable_bytes.value
    for family in families:
        table = table_of(family)
        legal = np.flatnonzero(~broken_rules(problem, table))
        if not len(legal):
            continue
        columns = price_table(problem, table.take(legal))
        time_s = np.where(columns.footprint.peak_bytes <= limit_bytes, columns.time_s, np.inf)
        best = int(np.argmin(time_s))
        if np.isfinite(time_s[best]):
            plan = family[int(legal[best])]
            return plan, estimate_plans(problem, [plan])[0]
    return None
