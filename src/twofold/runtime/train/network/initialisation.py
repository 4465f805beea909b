"""Starting weights, the same whatever the layout: each parameter has a seed of its own."""

from __future__ import annotations

import math
import zlib

import torch
from torch import nn

from twofold.runtime.train.network.decoder import Decoder
from twofold.runtime.train.shards import local_part, shard_of
from twofold.workload.train import Initialisation


def initialise(network: nn.Module, initialisation: Initialisation, seed: int) -> None:
    """Set the weights of a `Decoder` from the seed; a user's own network keeps its own.

    `gpt2`: normal(0, 0.02), residual outputs scaled by 1/sqrt(2 layers) (Radford et al. 2019).
    `zero-residual`: normal(0, 1/sqrt(fan_in)), residual outputs and head zero, embeddings unit
    (the speed-running recipe: the network starts as the identity). A rank that holds a shard draws
    the whole parameter and keeps its part.
    """
    if not isinstance(network, Decoder):
        return
    layers = network.model.layers
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.ndim < 2 or name.endswith(".bias"):
                local_part(parameter).fill_(1.0 if name.endswith("weight") else 0.0)
                continue
            deviation = _deviation(name, parameter.shape, initialisation, layers)
            if deviation == 0.0:
                local_part(parameter).zero_()
                continue
            generator = torch.Generator().manual_seed((seed << 32) + zlib.crc32(name.encode()))
            whole = torch.empty(parameter.shape).normal_(0.0, deviation, generator=generator)
            local_part(parameter).copy_(shard_of(whole, parameter))


def _deviation(name: str, shape: torch.Size, initialisation: Initialisation, layers: int) -> float:
    residual = name.endswith(("attention.output.weight", ".down.weight"))
    if initialisation == "gpt2":
        return 0.02 / math.sqrt(2 * layers) if residual else 0.02
    if residual or name == "head.weight":
        return 0.0
    if ("embedding" in name or "positions" in name) and "value_embedding" not in name:
        return 0.5
    return 1 / math.sqrt(shape[-1])
