"""Starting weights, the same whatever the layout: each parameter has a seed of its own."""

from __future__ import annotations

import math
import zlib

import torch
from torch import nn
from torch.distributed.tensor import DTensor, distribute_tensor

from twofold.runtime.train.network.decoder import Decoder
from twofold.workload.train import Initialisation


def initialise(network: nn.Module, initialisation: Initialisation, seed: int) -> None:
    """Set the weights of a `Decoder` from the seed; a user's own network keeps its own.

    `gpt2`: normal(0, 0.02), residual outputs scaled by 1/sqrt(2 layers) (Radford et al. 2019).
    `zero-residual`: normal(0, 1/sqrt(fan_in)), residual outputs and head zero, embeddings unit
    (the speed-running recipe: the network starts as the identity).
    """
    if not isinstance(network, Decoder):
        return
    layers = network.model.layers
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.ndim < 2 or name.endswith(".bias"):
                parameter.fill_(1.0 if name.endswith("weight") else 0.0)
                continue
            deviation = _deviation(name, parameter.shape, initialisation, layers)
            if deviation == 0.0:
                parameter.zero_()
                continue
            generator = torch.Generator().manual_seed((seed << 32) + zlib.crc32(name.encode()))
            value = torch.empty(parameter.shape).normal_(0.0, deviation, generator=generator)
            if isinstance(parameter, DTensor):
                shard = (parameter.device_mesh, parameter.placements)
                value = distribute_tensor(value, *shard, src_data_rank=None)
            parameter.copy_(value)


def _deviation(name: str, shape: torch.Size, initialisation: Initialisation, layers: int) -> float:
    residual = name.endswith(("attention.output.weight", ".down.weight"))
    if initialisation == "gpt2":
        return 0.02 / math.sqrt(2 * layers) if residual else 0.02
    if residual or name == "head.weight":
        return 0.0
    if ("embedding" in name or "positions" in name) and "value_embedding" not in name:
        return 0.5
    return 1 / math.sqrt(shape[-1])
