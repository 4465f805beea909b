"""Gradients summed over the ranks that hold the same weights, while backward still runs."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from twofold.runtime.train.shards import local_part, settle_gradient

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

    def take_waited_s(self) -> float:
        """Time inside collectives since last asked, during passes: none, they overlap."""
        return 0.0

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
        self.held_bytes = 0
        self.waiting = 0
        self.flat: Tensor | None = None
        self.work: dist.Work | None = None

    def has_room_for(self, parameter: nn.Parameter) -> bool:
        return (
            self.held_bytes + local_part(parameter).nbytes <= _BUCKET_BYTES
            and self.parameters[0].dtype == parameter.dtype
        )

    def add(self, parameter: nn.Parameter) -> None:
        self.parameters.append(parameter)
        self.held_bytes += local_part(parameter).nbytes
        self.waiting += 1

    def ready(self) -> None:
        self.waiting -= 1
        if self.waiting == 0:
            self._send()

    def _send(self) -> None:
        for parameter in self.parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            settle_gradient(parameter)
        flats = [local_part(p.grad).flatten() for p in self.parameters if p.grad is not None]
        self.flat = torch.cat(flats) if len(flats) > 1 else flats[0]
        self.work = dist.all_reduce(self.flat, group=self.group, async_op=True)

    def finish(self) -> None:
        """A parameter that took no part in this rank's pass still takes part in the sum."""
        if self.work is None:
            self._send()
        assert self.work is not None
        assert self.flat is not None
        self.work.wait()
        sizes = [local_part(p).numel() for p in self.parameters]
        for parameter, part in zip(self.parameters, self.flat.split(sizes), strict=True):
            parameter.grad = _like_gradient(parameter, part)
        self.flat, self.work, self.waiting = None, None, len(self.parameters)


def _like_gradient(parameter: nn.Parameter, part: Tensor) -> Tensor:
    """A view of the bucket as this parameter's gradient, laid out as the gradient is."""
    gradient = parameter.grad
    local = part.view(local_part(parameter).shape)
    if not isinstance(gradient, DTensor):
        return local
    return DTensor.from_local(
        local,
        gradient.device_mesh,
        gradient.placements,
        run_check=False,
        shape=gradient.shape,
        stride=gradient.stride(),
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
