"""Which part of a tensor a rank holds."""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.placement_types import Shard, _StridedShard


def local_part(tensor: Tensor) -> Tensor:
    """What this rank holds of it; a plain tensor is held whole."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def shard_of(whole: Tensor, like: Tensor) -> Tensor:
    """The part of `whole` that this rank holds of `like`, which has the same global shape.

    Ranks take consecutive chunks. Where two axes split one dimension, tensor ranks split it first
    and sharding splits their part: FSDP's `_StridedShard`, outer in the mesh, is applied last.
    """
    if not isinstance(like, DTensor):
        return whole
    mesh, part = like.device_mesh, whole
    placements = list(enumerate(like.placements))
    for axis, placement in sorted(placements, key=lambda p: isinstance(p[1], _StridedShard)):
        if isinstance(placement, (Shard, _StridedShard)):
            chunks = part.chunk(mesh.size(axis), placement.dim)
            index = mesh.get_local_rank(axis)
            nothing = part.narrow(placement.dim, 0, 0)
            part = chunks[index] if index < len(chunks) else nothing
    return part


def num_shards(tensor: Tensor) -> int:
    """Among how many ranks the elements of a tensor are divided."""
    if not isinstance(tensor, DTensor):
        return 1
    return math.prod(
        tensor.device_mesh.size(axis)
        for axis, placement in enumerate(tensor.placements)
        if isinstance(placement, (Shard, _StridedShard))
    )


def settle_gradient(parameter: nn.Parameter) -> None:
    """Lay the gradient out as the parameter is.

    Norms on sequence shards leave partial sums, and an uneven vocabulary a whole table.
    """
    gradient = parameter.grad
    if (
        isinstance(gradient, DTensor)
        and isinstance(parameter, DTensor)
        and gradient.placements != parameter.placements
    ):
        parameter.grad = gradient.redistribute(placements=parameter.placements)


def whole_of(part: Tensor, like: Tensor) -> Tensor:
    """Gathered from the ranks that hold parts of it as they do of `like`."""
    assert isinstance(like, DTensor)
    sharded = DTensor.from_local(
        part,
        like.device_mesh,
        like.placements,
        run_check=False,
        shape=like.shape,
        stride=like.stride(),
    )
    return sharded.full_tensor()
