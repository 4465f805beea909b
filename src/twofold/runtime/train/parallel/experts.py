"""Expert parallel: the ranks of a group hold a slice of every layer's experts each.

Shapes: e expert ranks, E experts of which a rank holds L = E / e, R rows, H hidden.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed._functional_collectives import all_to_all_single_autograd
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard

from twofold.plan import Plan
from twofold.runtime.train.gradients import REPLICA
from twofold.runtime.train.network.experts import Compute, ExpertFeedForward, StackedLinear
from twofold.runtime.train.world import World

_EXPERT = "expert"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertExchange:
    """Rows go to the ranks that hold their experts and come back (GShard, arXiv 2006.16668).

    Counts go first, since every rank sends each other as many rows as its tokens chose; nothing
    is padded or dropped. Backward takes the same two ways with gradients.
    """

    group: dist.ProcessGroup

    def __call__(self, rows: Tensor, counts: Tensor, compute: Compute) -> Tensor:
        """Rows [R, H] sorted by expert, counts [E] -> what the experts make of them, [R, H]."""
        sent = counts.view(self.group.size(), -1)
        received = torch.empty_like(sent)
        dist.all_to_all_single(received, sent, group=self.group)
        here, there = received.sum(1).tolist(), sent.sum(1).tolist()
        arrived = all_to_all_single_autograd(rows, here, there, self.group)
        experts = torch.arange(sent.shape[1], device=rows.device).repeat(self.group.size())
        order = experts.repeat_interleave(received.flatten()).argsort(stable=True)
        done = compute(arrived[order], received.sum(0).tolist())[order.argsort()]
        back: Tensor = all_to_all_single_autograd(done, there, here, self.group)
        return back


def spread_experts(network: nn.Module, plan: Plan, world: World) -> None:
    """Leave each rank its slice of every layer's experts, in place.

    Neighbours among the data and context ranks hold the slices (Megatron's order). The weights
    are DTensors over (replica, expert), so that checkpoints name them as one process does, and
    gradients are summed over the replicas: over all ranks that hold the same slice.
    """
    if plan.expert_degree == 1:
        return
    mesh = init_device_mesh(
        world.device.type,
        (
            plan.pipeline_degree,
            plan.data_degree * plan.context_degree // plan.expert_degree,
            plan.expert_degree,
            plan.tensor_degree,
        ),
        mesh_dim_names=("pipeline", REPLICA, _EXPERT, "tensor"),
    )[REPLICA, _EXPERT]
    for module in list(network.modules()):
        if isinstance(module, ExpertFeedForward):
            module.exchange = ExpertExchange(group=mesh.get_group(_EXPERT))
            for stack in (module.up, module.gate, module.down):
                if stack is not None:
                    _slice(stack, mesh)


def _slice(stack: StackedLinear, mesh: DeviceMesh) -> None:
    for name, parameter in list(stack.named_parameters()):
        mine = parameter.detach().chunk(mesh[_EXPERT].size())[mesh.get_local_rank(_EXPERT)]
        shard = DTensor.from_local(mine.clone(), mesh, (Replicate(), Shard(0)), run_check=False)
        stack.register_parameter(name, nn.Parameter(shard))
