"""A rank's network: described, split over the ranks, then filled."""

from __future__ import annotations

from torch import nn

from twofold.document import PlanDocument
from twofold.runtime.train.network import build_network, initialise
from twofold.runtime.train.parallel.context import make_pieces, split_sequences
from twofold.runtime.train.parallel.experts import spread_experts
from twofold.runtime.train.world import World


def make_network(document: PlanDocument, world: World) -> nn.Module:
    """The network, or this rank's part of it, with its starting weights on its device.

    Parameters are named as in the whole network.
    """
    plan = document.plan
    network = build_network(document.model, attention=plan.attention, recompute=plan.recompute)
    parallelise(network, document, world)
    initialise(network, document.workload.recipe.initialisation, document.seed)
    return network.to(world.device)


def parallelise(network: nn.Module, document: PlanDocument, world: World) -> None:
    """Split sequences (context) and layers (tensor), then experts, then shard what is left (ZeRO),
    in place."""
    pieces = make_pieces(document, world)
    if pieces is not None:
        split_sequences(network, pieces)
    spread_experts(network, document.plan, world)
