"""State sharded over data ranks (ZeRO, Rajbhandari et al. 2020) by FSDP2.

Gradients are summed over ranks, not averaged: a micro-batch's loss is weighted by its share of
the global batch, so the sum is the gradient of the whole however unlike the shares are.
"""

from __future__ import annotations

import time
from typing import Any

import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.fsdp._fully_shard._fsdp_collectives import (
    DefaultAllGather,
    DefaultReduceScatter,
)

from twofold.plan import Plan
from twofold.runtime.train.network import Decoder
from twofold.runtime.train.world import World


def shard(network: Decoder, plan: Plan, world: World) -> None:
    """Shard every block's parameters, then what is outside blocks, in place.

    Under stage 3 weights are gathered for each pass and dropped after it; below, once a step.
    """
    mesh = sharding_mesh(plan, world)
    dropped = plan.zero_stage == 3
    for block in network.blocks.values():
        fully_shard(block, mesh=mesh, reshard_after_forward=dropped)
    fully_shard(network, mesh=mesh, reshard_after_forward=dropped)
    for module in network.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)


def sharding_mesh(plan: Plan, world: World) -> DeviceMesh:
    """[shards] or, with fewer shards than ranks, [copies, shards] (HSDP).

    Context ranks share their data rank's weights, so they take shards too.
    """
    ranks = world.axis("data", "context")
    shards = (plan.shard_degree or plan.data_degree) * plan.context_degree
    if shards == ranks.size():
        return ranks
    return ranks._unflatten(0, (ranks.size() // shards, shards), ("replicate", "shard"))


class ShardedGradients:
    """Gradients that FSDP sums into each rank's shard while backward runs.

    Stage 1 keeps whole gradients until the step's last backward pass; from stage 2 each
    micro-batch's are summed at once.
    """

    def __init__(self, network: FSDPModule, plan: Plan) -> None:
        self.network = network
        self.plan = plan
        self.waited_s = 0.0
        for module in network.modules():  # type: ignore[attr-defined]
            if isinstance(module, FSDPModule):
                self._time(module)
        self._hold()

    def arm(self) -> None:
        """The next backward pass is the last of the step."""
        self.network.set_requires_gradient_sync(True)
        self.network.set_is_last_backward(True)
        self.network.set_reshard_after_backward(True)

    def take_waited_s(self) -> float:
        """Time inside collectives since last asked."""
        waited_s, self.waited_s = self.waited_s, 0.0
        return waited_s

    def finish(self) -> None:
        """Every gradient is the sum already."""
        self._hold()

    def _hold(self) -> None:
        self.network.set_requires_gradient_sync(self.plan.zero_stage >= 2)
        self.network.set_is_last_backward(False)
        self.network.set_reshard_after_backward(self.plan.zero_stage == 3)

    def _time(self, module: FSDPModule) -> None:
        timed = _Timed(self)
        module.set_custom_all_gather(_TimedAllGather(timed))
        module.set_custom_reduce_scatter(_TimedReduceScatter(timed))
        module.set_all_reduce_hook(timed.all_reduced)


class _Timed:
    """Time from a collective's call to its return; on a CPU it returns when it has ended."""

    def __init__(self, gradients: ShardedGradients) -> None:
        self.gradients = gradients
        self.ended_s = 0.0

    def run(self, collective: Any, *arguments: Any, **keywords: Any) -> Any:
        began_s = time.perf_counter()
        work = collective(*arguments, **keywords)
        self.ended_s = time.perf_counter()
        self.gradients.waited_s += self.ended_s - began_s
        return work

    def all_reduced(self, _: Tensor) -> None:
        """Called after HSDP's sum over copies, which follows the reduce-scatter at once."""
        self.gradients.waited_s += time.perf_counter() - self.ended_s


class _TimedAllGather(DefaultAllGather):
    def __init__(self, timed: _Timed) -> None:
        self.timed = timed

    def __call__(self, *arguments: Any, **keywords: Any) -> dist.Work | None:
        work: dist.Work | None = self.timed.run(super().__call__, *arguments, **keywords)
        return work


class _TimedReduceScatter(DefaultReduceScatter):
    def __init__(self, timed: _Timed) -> None:
        self.timed = timed

    def __call__(self, *arguments: Any, **keywords: Any) -> dist.Work:
        work: dist.Work = self.timed.run(super().__call__, *arguments, **keywords)
        return work
