"""What to compare a plan with: what a newcomer would run, and the best well-known recipe."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from twofold.outcome import Estimate
from twofold.perf.fleet import Problem, estimate_plans, price_table
from twofold.perf.plans import table_of
from twofold.plan import Plan, Schedule
from twofold.search.factors import divisors
from twofold.search.fleet_rules import broken_rules, default_precision, scale_up_domain
from twofold.search.levers import device_counts
from twofold.search.objective import Limits

Array = NDArray[np.float64]
Families = Callable[[Problem, int], Iterator[list[Plan]]]
Choice = Callable[[Array], int]


def baseline_plans(
    problem: Problem, *, limits: Limits | None = None, memory_limit_bytes: float | None = None
) -> dict[str, tuple[Plan, Estimate]]:
    """ "newcomer" and "well-known", as their rules below choose them within the same limits that
    a search has: all devices, or the most that will do.

    Where no such plan keeps the limits it is one that fits the devices and breaks them; one is
    missing where none of its plans is legal and fits.
    """
    usable_bytes = problem.pool.node.accelerator.memory.usable_bytes.value
    limit_bytes = min(usable_bytes, memory_limit_bytes or usable_bytes)
    limits = limits or Limits()
    well_known = (_newcomer, _last) if problem.model.operators else (_well_known, _fastest)
    chosen: dict[str, tuple[Families, Choice]] = {
        "newcomer": (_newcomer, _last),
        "well-known": well_known,
    }
    found = {}
    for name, (families, choose) in chosen.items():
        plan = _first_that_fits(problem, families, choose, limits, limit_bytes)
        if plan is None and (limits != Limits() or limit_bytes < usable_bytes):
            plan = _first_that_fits(problem, families, choose, Limits(), usable_bytes)
        if plan is not None:
            found[name] = plan, estimate_plans(problem, [plan])[0]
    return found


def _newcomer(problem: Problem, devices: int) -> Iterator[list[Plan]]:
    """What a framework does by default: every device a replica (DDP), and where that does not
    fit weights sharded over all of them (FSDP); all layers recomputed only where nothing fits
    without. The largest micro-batch that fits, so a family rises in it. Where the batch has
    fewer sequences than there are devices, tensor ranks inside a domain take up the rest, then
    context ranks.

    Experts are spread over the devices of a machine, or over as many as there are experts. The
    frameworks' own default is 1 (Megatron-LM's --expert-model-parallel-size, DeepSpeed's ep_size),
    a straw man: no guide trains such a model so, and the first thing that they say is to spread
    the experts within the fast network (Megatron Core, "Mixture of Experts": EP x TP inside the
    NVLink domain). The optimizer's state is sharded before weights are: DeepSpeed's experts
    go with ZeRO-1 and 2, not with 3."""
    domain, precision = scale_up_domain(problem), default_precision(problem)
    stages: tuple[Literal[0, 1, 3], ...] = (0, 3) if problem.model.experts is None else (0, 1, 3)
    for context, tensor in product(divisors(devices), divisors(devices)):
        if tensor > domain or devices % (context * tensor):
            continue
        data = devices // (context * tensor)
        share = problem.workload.recipe.global_batch // data
        plans = [
            Plan(
                pool=problem.pool.name,
                data_degree=data,
                context_degree=context,
                tensor_degree=tensor,
                expert_degree=_experts_over(problem, devices, problem.pool.node.num_accelerators),
                micro_batch=2**power,
                precision=precision,
                optimizer_kernel="fused",
            )
            for power in range(share.bit_length())
        ]
        for stage in stages:
            yield [replace(plan, zero_stage=stage) for plan in plans]
        yield [replace(plan, zero_stage=3, recompute="full") for plan in plans]


def _well_known(problem: Problem, devices: int) -> Iterator[list[Plan]]:
    """Megatron-LM's recipe (Narayanan et al. 2021, takeaways 1 to 3; Korthikanti et al. 2023),
    tuned: tensor ranks inside a domain with sequence parallelism, then stages, interleaved or
    not; optimizer state sharded; micro-batches of 1, 2, 4 or 8; experts over a domain or over as
    many ranks as there are experts; nothing recomputed or all. The fastest that fits; context
    ranks only where without them none does."""
    domain, precision = scale_up_domain(problem), default_precision(problem)
    widths = (domain, problem.model.experts.count if problem.model.experts else 1)
    for context in divisors(devices):
        family = []
        rest = devices // context
        for tensor, pipeline in product(divisors(rest), divisors(rest)):
            if tensor > domain or rest % (tensor * pipeline) or pipeline > problem.model.layers:
                continue
            data = rest // (tensor * pipeline)
            for (schedule, virtual), expert, micro, recompute in product(
                _schedules(problem, pipeline),
                sorted({_experts_over(problem, data * context * tensor, m) for m in widths}),
                (1, 2, 4, 8),
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
                    precision=precision,
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


def _experts_over(problem: Problem, ranks: int, most: int) -> int:
    """The most ranks, up to so many, over which experts can be spread evenly; 1 without any."""
    experts = problem.model.experts
    if experts is None:
        return 1
    return max(e for e in divisors(experts.count) if ranks % e == 0 and e <= most)


def _first_that_fits(
    problem: Problem, families: Families, choose: Choice, limits: Limits, limit_bytes: float
) -> Plan | None:
    """The fastest of what is chosen on each round number of devices; where none of them has a
    plan that keeps all limits, on the most devices that do."""
    devices, batch = problem.pool.num_devices, problem.workload.recipe.global_batch
    round_counts = device_counts(devices, batch, fewer=None)
    found = [
        pair
        for count in round_counts
        if (pair := _chosen(problem, families(problem, count), choose, limits, limit_bytes))
    ]
    if found:
        return min(found, key=lambda pair: pair[0])[1]
    for count in device_counts(devices, batch, fewer=True):
        if count in round_counts:
            continue
        pair = _chosen(problem, families(problem, count), choose, limits, limit_bytes)
        if pair:
            return pair[1]
    return None


def _chosen(
    problem: Problem,
    families: Iterator[list[Plan]],
    choose: Choice,
    limits: Limits,
    limit_bytes: float,
) -> tuple[float, Plan] | None:
    """Of the first family of which any plan is legal and keeps all limits, with its time."""
    for family in families:
        if not family:
            continue
        table = table_of(family)
        legal = np.flatnonzero(~broken_rules(problem, table))
        if not len(legal):
            continue
        columns = price_table(problem, table.take(legal))
        footprint = columns.footprint
        kept = footprint.fits_host & (footprint.peak_bytes <= limit_bytes)
        kept &= limits.kept(columns)
        if kept.any():
            place = choose(np.where(kept, columns.time_s, np.inf))
            return float(columns.time_s[place]), family[int(legal[place])]
    return None


def _fastest(time_s: Array) -> int:
    """The place of the least."""
    return int(np.argmin(time_s))


def _last(time_s: Array) -> int:
    """The last place that is finite."""
    return int(np.flatnonzero(np.isfinite(time_s))[-1])
