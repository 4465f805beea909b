"""A rank's network: described without memory, split over the ranks, then filled."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from twofold.document import PlanDocument
from twofold.runtime.train.network import Decoder, Part, build_network, initialise
from twofold.runtime.train.parallel.context import make_pieces, split_sequences
from twofold.runtime.train.parallel.data import shard
from twofold.runtime.train.parallel.experts import spread_experts
from twofold.runtime.train.parallel.passes import Pass, WholePass
from twofold.runtime.train.parallel.pipeline import PipelinePass, part_of_rank
from twofold.runtime.train.parallel.tensor import split_layers
from twofold.runtime.train.world import World


def make_network(document: PlanDocument, world: World) -> nn.Module:
    """The network, or this rank's part of it, with its starting weights on its device.

    Parameters are named as in the whole network. Memory peaks at the rank's shards and one whole
    parameter. A user's own network is built whole: only data ranks can share it.
    """
    plan = document.plan
    if document.model.entry is not None:
        own = build_network(document.model, attention=plan.attention, recompute=plan.recompute)
        return own.to(world.device)
    network = laid_out(document, world)
    network.to_empty(device=world.device)
    network.tie()
    for module in network.modules():
        fill: Callable[[], None] | None = getattr(module, "fill_buffers", None)
        if fill is not None:
            fill()
    initialise(network, document.workload.recipe.initialisation, document.seed)
    return network


def laid_out(document: PlanDocument, world: World) -> Decoder:
    """This rank's part of the network, split over the ranks, still without memory."""
    plan = document.plan
    part = None
    if plan.pipeline_degree > 1:
        part = part_of_rank(plan, document.model.layers, world.rank)
    network = _described(document, part)
    parallelise(network, document, world)
    return network


def make_pass(network: nn.Module, document: PlanDocument, world: World) -> Pass:
    if document.plan.pipeline_degree == 1:
        return WholePass(network, document, world)
    assert isinstance(network, Decoder)
    return PipelinePass(network, document, world)


def parallelise(network: Decoder, document: PlanDocument, world: World) -> None:
    """Split sequences (context) and layers (tensor), then experts, then shard what is left (ZeRO),
    in place."""
    plan = document.plan
    pieces = make_pieces(document, world)
    if pieces is not None:
        split_sequences(network, pieces)
    if plan.tensor_degree > 1:
        mesh = world.axis("tensor")
        split_layers(network, mesh, sequence_parallel=plan.sequence_parallel)
    spread_experts(network, plan, world)
    if plan.zero_stage > 0 and plan.data_degree * plan.context_degree > 1:
        shard(network, plan, world)


def count_parameters(document: PlanDocument, network: nn.Module) -> int:
    """Those of the whole model, however little of it this rank holds."""
    whole = network if document.model.entry is not None else _described(document)
    return sum(parameter.numel() for parameter in whole.parameters())


def _described(document: PlanDocument, part: Part | None = None) -> Decoder:
    plan = document.plan
    with torch.device("meta"):
        network = build_network(
            document.model, attention=plan.attention, recompute=plan.recompute, part=part
        )
    assert isinstance(network, Decoder)
    return network
