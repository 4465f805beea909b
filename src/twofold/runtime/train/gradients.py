"""Gradients summed over the ranks that hold the same weights, while backward still runs."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn

_BUCKET_BYTES = 8 * 2**20


class SummedGradients:
    """Buckets of gradients leave for their all-reduce as soon as backward has filled them.

    Summed, not averaged: the loss of a micro-batch is its share of the global batch's, so the
    sum is the gradient of the whole however unlike the shares are.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], group: dist.ProcessGroup | None) -> None:
        self._buckets: list[_Bucket] = []
        self._armed = False
        if group is None:
            return
        for parameter in reversed([p for p in parameters if p.requires_grad]):
            if not self._buckets or not self._buckets[-1].has_room_for(parameter):
                self._buckets.append(_Bucket(group))
            bucket = self._buckets[-1]
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
        held = sum(p.numel() * p.element_size() for p in self.parameters)
        return (
            held + parameter.numel() * parameter.element_size() <= _BUCKET_BYTES
            and self.parameters[0].dtype == parameter.dtype
        )

    def add(self, parameter: nn.Parameter) -> None:
        self.parameters.append(parameter)
        self.waiting += 1

    def ready(self) -> None:
        self.waiting -= 1
        if self.waiting == 0:
            self._send()

    def _send(self) -> None:
        gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in self.parameters]
        self.flat = torch.cat([gradient.flatten() for gradient in gradients])
        self.work = dist.all_reduce(self.flat, group=self.group, async_op=True)

    def finish(self) -> None:
        """A parameter that took no part in this rank's pass still takes part in the sum."""
        if self.work is None:
            self._send()
        assert self.work is not None
        assert self.flat is not None
        self.work.wait()
        sizes = [p.numel() for p in self.parameters]
        for parameter, part in zip(self.parameters, self.flat.split(sizes), strict=True):
            parameter.grad = part.view_as(parameter)
        self.flat, self.work, self.waiting = None, None, len(self.parameters)
