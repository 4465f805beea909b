"""What others would run: a newcomer, and whoever takes a good engine at its default limits."""

from __future__ import annotations

from dataclasses import replace

from twofold.errors import InputError
from twofold.fleet import Pool
from twofold.perf.serving import serving_memory
from twofold.search.serving.question import ServingQuestion
from twofold.search.serving.space import tensor_degrees
from twofold.serving_plan import ServingPlan

STATIC_BATCH = 32
VLLM_SEQUENCES, VLLM_TOKENS = 256, 8192
"""vLLM's own defaults (max_num_seqs, max_num_batched_tokens) for serving on a data-centre GPU."""


def newcomer(question: ServingQuestion, pool: Pool) -> ServingPlan | None:
    """Static batches of 32 with a key-value cache on all devices of a machine, or of as many as
    the model needs; a whole batch's prompts in one step. None where the model does not fit."""
    tensor = max(d for d in tensor_degrees(question.model, pool) if d <= _machine(pool))
    plan = ServingPlan(
        pool=pool.name,
        precision=question.products_on(pool)[0],
        tensor_degree=tensor,
        batching="static",
        max_num_seqs=STATIC_BATCH,
        max_batched_tokens=max(VLLM_TOKENS, round(STATIC_BATCH * question.workload.input.mean)),
        prefix_caching=False,
    )
    return _smallest(question, pool, [replace(plan, pipeline_degree=p) for p in _stages(pool)])


def sensible(question: ServingQuestion, pool: Pool) -> ServingPlan | None:
    """Continuous batching at vLLM's default limits on the fewest devices that hold the model, and
    as many replicas as the fleet has room for. None where the model does not fit."""
    plan = ServingPlan(
        pool=pool.name,
        precision=question.products_on(pool)[0],
        max_num_seqs=VLLM_SEQUENCES,
        max_batched_tokens=VLLM_TOKENS,
    )
    divided = [
        replace(plan, tensor_degree=tensor, pipeline_degree=pipeline)
        for pipeline in _stages(pool)
        for tensor in tensor_degrees(question.model, pool)
    ]
    return _smallest(question, pool, divided)


def _smallest(
    question: ServingQuestion, pool: Pool, plans: list[ServingPlan]
) -> ServingPlan | None:
    """The first that holds the model and the longest request, on all of the fleet."""
    for plan in plans:
        if plan.replica_devices > pool.num_devices:
            continue
        try:
            memory = serving_memory(question.model, question.fleet, plan)
        except InputError:
            continue
        if memory.num_blocks * plan.block_tokens >= question.longest_tokens:
            return replace(plan, replicas=pool.num_devices // plan.replica_devices)
    return None


def _machine(pool: Pool) -> int:
    return min(pool.node.num_accelerators, pool.num_devices)


def _stages(pool: Pool) -> list[int]:
    """Machines that one replica spans."""
    return [machines for machines in (1, 2, 4, 8, 16) if machines <= max(pool.num_nodes, 1)]
