"""Gradients summed over the ranks that hold the same weights, while backward still runs, and the
norm of all of them together."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Shard

REPLICA = "replica"
"""The dimension of a parameter's mesh whose ranks hold the same part of it."""

_BUCKET_BYTES = 8 * 2**20


class SummedGradients:
    """Buckets of gradients leave for their all-reduce as soon as backward has filled them.

    Summed, not averaged: the loss of a micro-batch is its share of the global batch's, so the
    sum is the gradient of the whole however unlike the shares are. A parameter whose mesh has a
    dimension of replicas is summed over those, not over `group`.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], group: dist.ProcessGroup | None) -> None:
        self._buckets: list[_Bucket] = []
        self._armed = False
        newest: dict[dist.ProcessGroup, _Bucket] = {}
        for parameter in reversed([p for p in parameters if p.requires_grad]):
            over = _summed_over(parameter, group)
            if over is None:
                continue
            bucket = newest.get(over)
            if bucket is None or not bucket.has_room_for(parameter):
                bucket = newest[over] = _Bucket(over)
                self._buckets.append(bucket)
            bucket.add(parameter)
            parameter.register_post_accumulate_grad_hook(self._hook(bucket))

    def arm(self) -> None:
        """The next backward pass is the last of the step."""
        self._armed = True

    def finish(self) -> None:
        """Wait until every gradient is the sum."""
        for bucket in self._buckets:
            bucket.finish()
        self._armed = False

    def _hook(self, bucket: _Bucket):  # type: ignore[no-untyped-def]
        def ready(parameter: Tensor) -> None:
            if self._armed:
                bucket.ready()

        return ready


class _Bucket:
    def __init__(self, group: dist.ProcessGroup) -> None:
        self.group = group
        self.parameters: list[nn.Parameter] = []
        self.waiting = 0
        self.flat: Tensor | None = None
        self.work: dist.Work | None = None

    def has_room_for(self, parameter: nn.Parameter) -> bool:
        held = sum(held_here(p).nbytes for p in (*self.parameters, parameter))
        return held <= _BUCKET_BYTES and (self.parameters[0].dtype == parameter.dtype)

    def add(self, parameter: nn.Parameter) -> None:
        self.parameters.append(parameter)
        self.waiting += 1

    def ready(self) -> None:
        self.waiting -= 1
        if self.waiting == 0:
            self._send()

    def _send(self) -> None:
        gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in self.parameters]
        self.flat = torch.cat([held_here(gradient).flatten() for gradient in gradients])
        self.work = dist.all_reduce(self.flat, group=self.group, async_op=True)

    def finish(self) -> None:
        """A parameter that took no part in this rank's pass still takes part in the sum."""
        if self.work is None:
            self._send()
        assert self.work is not None
        assert self.flat is not None
        self.work.wait()
        sizes = [held_here(p).numel() for p in self.parameters]
        for parameter, part in zip(self.parameters, self.flat.split(sizes), strict=True):
            parameter.grad = _like(parameter, part)
        self.flat, self.work, self.waiting = None, None, len(self.parameters)


@torch.no_grad()
def clip_gradients(parameters: Iterable[nn.Parameter], limit: float) -> Tensor:
    """Scale all gradients so that their norm is at most `limit`; returns the norm before.

    Each element counts once: a rank adds the squares that it holds, and those of sharded
    parameters are summed over the ranks that hold the other shards.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    parts: dict[tuple[dist.ProcessGroup, ...], list[Tensor]] = {}
    for gradient in gradients:
        parts.setdefault(_sharded_over(gradient), []).append(held_here(gradient))
    norms = []
    for groups, held in parts.items():
        square = nn.utils.get_total_norm(held).square()
        for group in groups:
            dist.all_reduce(square, group=group)
        norms.append(square.sqrt())
    norm: Tensor = torch.stack(norms).norm()
    scale = (limit / (norm + 1e-6)).clamp(max=1.0)
    for held in parts.values():
        torch._foreach_mul_(held, scale)
    return norm


def held_here(tensor: Tensor) -> Tensor:
    """A tensor, or of a sharded one the part that this rank holds."""
    held = tensor.detach()
    return held.to_local() if isinstance(held, DTensor) else held


def _like(parameter: nn.Parameter, flat: Tensor) -> Tensor:
    part = flat.view_as(held_here(parameter))
    if not isinstance(parameter, DTensor):
        return part
    return DTensor.from_local(
        part,
        parameter.device_mesh,
        parameter.placements,
        run_check=False,
        shape=parameter.shape,
        stride=parameter.stride(),
    )


def _summed_over(
    parameter: nn.Parameter, group: dist.ProcessGroup | None
) -> dist.ProcessGroup | None:
    if not isinstance(parameter, DTensor):
        return group
    mesh = parameter.device_mesh
    if REPLICA not in (mesh.mesh_dim_names or ()):
        return group
    return mesh.get_group(REPLICA) if mesh[REPLICA].size() > 1 else None


def _sharded_over(gradient: Tensor) -> tuple[dist.ProcessGroup, ...]:
    if not isinstance(gradient, DTensor):
        return ()
    return tuple(
        gradient.device_mesh.get_group(dimension)
        for dimension, placement in enumerate(gradient.placements)
        if isinstance(placement, Shard)
    )
