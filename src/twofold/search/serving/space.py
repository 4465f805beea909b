"""The plans that are tried: how a replica is divided, and what its scheduler is limited to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product

from twofold.errors import InputError
from twofold.fleet import Pool
from twofold.model import Model
from twofold.perf.serving import serving_memory
from twofold.search.factors import divisors
from twofold.search.serving.question import ServingQuestion
from twofold.serving_plan import ServingPlan

MAX_NUM_SEQS = (8, 16, 32, 64, 128, 256, 512, 1024)
MAX_BATCHED_TOKENS = (512, 1024, 2048, 4096, 8192, 16384)
_MOST_STAGES = 16
_WIDEST_EXPERTS = 64
"""Devices of one replica whose attention groups meet in the experts alone, over machines."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Division:
    """A replica of the model on some devices of a pool, as a plan of one replica. `cache_tokens`
    fit at the default limits."""

    plan: ServingPlan
    cache_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Divisions:
    """Those that fit, and why the others do not."""

    fitting: list[Division]
    num_considered: int
    rejected: dict[str, int]


def divisions(question: ServingQuestion, pool: Pool) -> Divisions:
    """Every way to divide a replica over devices of that pool."""
    fitting, rejected, number = [], dict[str, int](), 0
    for plan in _plans(question, pool):
        number += 1
        reason = None
        try:
            memory = serving_memory(question.model, question.fleet, plan)
        except InputError:
            reason = "leave no room for a cache"
        else:
            tokens = memory.num_blocks * plan.block_tokens
            if tokens // plan.attention_data_degree < question.longest_tokens:
                reason = "cannot hold the longest request"
            else:
                fitting.append(Division(plan=plan, cache_tokens=tokens))
        if reason is not None:
            rejected[reason] = rejected.get(reason, 0) + 1
    return Divisions(fitting=fitting, num_considered=number, rejected=rejected)


def limits() -> Iterator[tuple[int, int]]:
    """Sequences and tokens of a step; a step has room for its sequences."""
    for sequences, tokens in product(MAX_NUM_SEQS, MAX_BATCHED_TOKENS):
        if sequences <= tokens // 2:
            yield sequences, tokens


def tensor_degrees(model: Model, pool: Pool) -> list[int]:
    """Those that divide the heads, within one machine or scale-up domain."""
    up = pool.node.link("scale-up")
    domain = max(pool.node.num_accelerators, up.domain if up else 1)
    return [d for d in divisors(model.heads) if d <= min(domain, pool.num_devices)]


def _plans(question: ServingQuestion, pool: Pool) -> Iterator[ServingPlan]:
    model, formats = question.model, question.formats
    wide = max(tensor_degrees(model, pool))
    for precision, weights, cache, threads in product(
        question.products_on(pool), formats.weights, formats.caches, question.threads
    ):
        base = ServingPlan(
            pool=pool.name,
            precision=precision,
            weight_precision=weights,
            kv_precision=cache,
            threads=threads,
        )
        for tensor, pipeline in product(tensor_degrees(model, pool), _stages(model)):
            if tensor * pipeline > pool.num_devices:
                continue
            plan = replace(base, tensor_degree=tensor, pipeline_degree=pipeline)
            yield plan
            if model.experts is not None and tensor > 1:
                yield from _expert_parallel(model.experts.count, plan)
        if model.experts is None:
            continue
        for tensor in (2 * wide, 4 * wide, 8 * wide):
            if tensor <= min(_WIDEST_EXPERTS, pool.num_devices):
                yield from _wide(model.experts.count, replace(base, tensor_degree=tensor))


def _expert_parallel(count: int, plan: ServingPlan) -> Iterator[ServingPlan]:
    """Whole experts on each device; attention divided by heads, or by sequences."""
    if count % plan.tensor_degree == 0:
        yield replace(plan, expert_degree=plan.tensor_degree)
        yield from _wide(count, plan)


def _wide(count: int, plan: ServingPlan) -> Iterator[ServingPlan]:
    degree = plan.tensor_degree
    if count % degree == 0:
        yield replace(plan, expert_degree=degree, attention_data_degree=degree)


def _stages(model: Model) -> list[int]:
    return [d for d in (1, 2, 4, 8, _MOST_STAGES) if d <= model.layers]
