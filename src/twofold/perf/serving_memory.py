"""Memory of a serving device, in parts, and how many cache blocks are left."""

from __future__ import annotations

from dataclasses import dataclass

from twofold.errors import InputError
from twofold.fleet import Accelerator, Fleet
from twofold.model import Model
from twofold.model.attention import attention_rows
from twofold.model.cache import cache_elements, cache_shards
from twofold.model.ends import input_rows, output_rows
from twofold.model.feedforward import feedforward_rows
from twofold.model.table import Operator
from twofold.perf.footprint import FRAMEWORK_BYTES
from twofold.perf.ops import ELEMENT_BYTES
from twofold.perf.serving_work import Layout, kv_bytes, require_decoder, weight_bytes
from twofold.serving_plan import ServingPlan

_PROCESS_BYTES = 0.4e9
"""A Python process with PyTorch loaded, where the machine was not calibrated."""
_LOGIT_BYTES = 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingMemory:
    """Of the fullest device. `parts_bytes` add up: weights, buffers, framework, cache.

    `num_blocks` are those of a whole replica: its attention groups hold different sequences and
    have equal shares of them. `kv_bytes_per_token` is what one token takes on one device.
    """

    parts_bytes: dict[str, float]
    num_blocks: int
    kv_bytes_per_token: float


def serving_memory(model: Model, fleet: Fleet, plan: ServingPlan) -> ServingMemory:
    """As the plan divides the model. InputError where the weights, or the blocks the plan asks
    for, do not fit into its share of the usable memory."""
    require_decoder(model)
    accelerator = fleet.pool(plan.pool).node.accelerator
    layout = plan_layout(plan)
    parts = {
        "weights": weights_per_device_bytes(model, layout),
        "buffers": buffer_bytes(model, layout, plan.max_batched_tokens, plan.max_num_seqs),
        "framework": framework_bytes(accelerator),
    }
    budget = plan.memory_fraction * accelerator.memory.usable_bytes.value
    free = budget - sum(parts.values())
    per_token = kv_bytes_per_token(model, layout)
    block = plan.block_tokens * per_token
    per_group = int(free // block)
    if per_group < 1:
        told = ", ".join(f"{name} {size / 1e9:.1f} GB" for name, size in parts.items())
        raise InputError(
            f"'{model.name}' leaves no room for a cache: {told} of {budget / 1e9:.1f} GB that "
            f"'{accelerator.name}' gives",
            at="plan, tensor_degree",
            help="divide the model over more devices, or store its weights in fewer bits",
        )
    fitting = plan.attention_data_degree * per_group
    if plan.num_blocks > fitting:
        raise InputError(
            f"{plan.num_blocks} blocks of {plan.block_tokens} tokens do not fit: {fitting} do",
            at="plan, num_blocks",
            help="use 0 for as many as fit",
        )
    num_blocks = plan.num_blocks or fitting
    held = num_blocks / plan.attention_data_degree * block
    return ServingMemory(
        parts_bytes={**parts, "cache": held}, num_blocks=num_blocks, kv_bytes_per_token=per_token
    )


def plan_layout(plan: ServingPlan) -> Layout:
    """The division of one replica."""
    return Layout(
        tensor=plan.tensor_degree,
        pipeline=plan.pipeline_degree,
        groups=plan.attention_data_degree,
        expert=plan.expert_degree,
        precision=plan.precision,
        weight_precision=plan.weight_precision,
        kv_precision=plan.kv_precision,
    )


def weights_per_device_bytes(model: Model, layout: Layout) -> float:
    """Of the fullest pipeline stage. Products of the blocks are stored as the plan says, the rest
    in the activations' width; a tied head is the embedding, and a copy of it on another stage."""
    width = float(ELEMENT_BYTES[layout.precision])
    group = layout.tensor // layout.groups
    inner = feedforward_rows(model)
    blocks = sum(_stored(row, weight_bytes(layout), width, group) for row in attention_rows(model))
    blocks += sum(
        _stored(row, weight_bytes(layout), width, layout.tensor) if row.divided_by else 0.0
        for row in inner
    )
    ends = [
        sum(width * row.parameters * row.repeat for row in rows) / layout.tensor
        for rows in (input_rows(model), output_rows(model))
    ]
    table = width * model.vocab * model.hidden / layout.tensor
    if layout.pipeline == 1:
        return blocks + sum(ends)
    stage = -(-model.layers // layout.pipeline) / model.layers
    return blocks * stage + max(ends[0], ends[1] + (table if model.tied_embeddings else 0.0))


def _stored(row: Operator, weight: float, width: float, ranks: int) -> float:
    """Bytes of a row's parameters on one of `ranks` devices."""
    each = weight if row.kind == "gemm" and row.op != "router" else width
    split = {"tensor", "expert"} & set(row.divided_by)
    return each * row.parameters * row.repeat / (ranks if split else 1)


def buffer_bytes(model: Model, layout: Layout, tokens: int, sequences: int) -> float:
    """The residual stream, its norm and the widest activation of a step's tokens, and the logits
    of its sequences."""
    width = float(ELEMENT_BYTES[layout.precision])
    inner = max(
        row.n.coefficient / (layout.tensor if "tensor" in row.divided_by else 1)
        for row in (*attention_rows(model), *feedforward_rows(model))
        if row.kind == "gemm" and "expert" not in row.divided_by
    )
    if model.experts is not None:
        routed = model.experts.top_k * (3 * model.experts.ffn + 2 * model.hidden)
        inner = max(inner, routed / layout.tensor)
    logits = _LOGIT_BYTES * sequences * model.vocab / layout.tensor
    return width * tokens * (2 * model.hidden + 2 * inner) + logits


def framework_bytes(accelerator: Accelerator) -> float:
    """What a process takes before any weight: measured where calibrated."""
    curves = accelerator.curves
    if curves is not None and "base_memory_bytes" in curves.scalars:
        return curves.scalars["base_memory_bytes"].value
    return _PROCESS_BYTES if accelerator.kind == "cpu" else FRAMEWORK_BYTES


def kv_bytes_per_token(model: Model, layout: Layout) -> float:
    """Of one device: its stage's layers, its share of the heads. Layers with a window count whole:
    a plain paged cache keeps their old blocks."""
    layers = -(-model.layers // layout.pipeline)
    shards = cache_shards(model, layout.tensor // layout.groups)
    return kv_bytes(layout) * cache_elements(model) * layers / shards
