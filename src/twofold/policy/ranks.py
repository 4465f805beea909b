"""Where a rank stands on each parallel axis, and which layers a pipeline stage holds."""

from __future__ import annotations

from dataclasses import dataclass

from twofold.errors import InputError
from twofold.plan import Plan
from twofold.policy.shares import even_shares


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """The index of a rank on each axis."""

    pipeline: int
    data: int
    context: int
    tensor: int


def place_of(rank: int, plan: Plan) -> Place:
    """Tensor ranks are nearest neighbours, then context, data and pipeline ranks."""
    outer, tensor = divmod(rank, plan.tensor_degree)
    outer, context = divmod(outer, plan.context_degree)
    pipeline, data = divmod(outer, plan.data_degree)
    return Place(pipeline=pipeline, data=data, context=context, tensor=tensor)


def rank_of(place: Place, plan: Plan) -> int:
    """The inverse of `place_of`."""
    outer = place.pipeline * plan.data_degree + place.data
    return (outer * plan.context_degree + place.context) * plan.tensor_degree + place.tensor


def stage_of_chunk(pipeline_rank: int, chunk: int, plan: Plan) -> int:
    """The model-wide stage that is a pipeline rank's `chunk`-th (Megatron's interleaving)."""
    return chunk * plan.pipeline_degree + pipeline_rank


def blocks_of_stages(plan: Plan, layers: int) -> tuple[range, ...]:
    """The blocks of each stage in model order, `virtual_stages` x `pipeline_degree` stages.

    Blocks that do not divide go to the earliest stages; InputError where a stage has none, or
    where the plan's own stages do not add up.
    """
    num_stages = plan.pipeline_degree * plan.virtual_stages
    if plan.stages:
        counts = tuple(stage.layers for stage in plan.stages)
        if sum(counts) != layers or plan.virtual_stages != 1:
            raise InputError(
                f"the stages hold {sum(counts)} layers and the model has {layers}"
                if plan.virtual_stages == 1
                else "unlike stages cannot be interleaved",
                at="plan, stages",
                help="give every layer to one stage, and use virtual_stages 1",
            )
    else:
        if num_stages > layers:
            raise InputError(
                f"{num_stages} stages for {layers} layers",
                at="plan, pipeline_degree",
                help=f"use at most {layers} stages (pipeline degree x virtual stages)",
            )
        counts = even_shares(layers, num_stages)
    starts = [sum(counts[:index]) for index in range(len(counts))]
    return tuple(range(start, start + count) for start, count in zip(starts, counts, strict=True))
