"""A rank among thousands: its world of fake process groups, its network on the meta device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
from torch.distributed._tools import fake_collectives  # noqa: F401  (collectives of meta tensors)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.pipelining import PipelineStage
from torch.distributed.pipelining._utils import (
    _StageBackwardMeta,
    _StageForwardMeta,
    extract_tensor_meta,
)
from torch.testing._internal.distributed.fake_pg import FakeStore

from twofold.document import PlanDocument
from twofold.plan import Plan
from twofold.policy import micro_batches, num_micro_steps, place_of, shares_of
from twofold.runtime.rehearse.account import Account
from twofold.runtime.train.gradients import SummedGradients
from twofold.runtime.train.parallel import make_pass
from twofold.runtime.train.parallel.build import laid_out
from twofold.runtime.train.shards import local_part
from twofold.runtime.train.world import AXES, World

META = torch.device("meta")
Row = dict[str, Any]


def rehearse(document: PlanDocument, rank: int) -> Row:
    """One step of that rank: elements it holds by parameter, traffic by axis and kind.

    All in fp32: what is counted are elements. Not counted is what stages send each other before
    the first step, to agree on shapes.
    """
    document = replace(document, plan=replace(document.plan, precision="fp32", threads=1))
    plan, recipe = document.plan, document.workload.recipe
    with _world(plan, rank) as world:
        network = laid_out(document, world).train()
        network.to_empty(device=META)
        passes = make_pass(network, document, world)
        gradients = SummedGradients(network.parameters(), world.group("data", "context"))
        shares = shares_of(plan, recipe.global_batch)
        share = shares[world.place.data]
        rows = torch.empty((share, document.workload.seq_len + 1), dtype=torch.int64, device=META)
        micros = rows.split(micro_batches(share, num_micro_steps(plan, shares)))
        account = Account(axes=_names_of_groups(world))
        with account, _told(document, account) if plan.pipeline_degree > 1 else nullcontext():
            passes.forward_backward(
                micros, sequence_weight=1 / recipe.global_batch, before_last=gradients.arm
            )
            gradients.finish()
        return {
            "rank": rank,
            "held": {name: list(local_part(p).shape) for name, p in network.named_parameters()},
            "traffic": [
                {"axis": axis, "kind": kind, "calls": seen.calls, "bytes": seen.bytes}
                for (axis, kind), seen in sorted(account.traffic.items())
            ],
        }


@contextmanager
def _world(plan: Plan, rank: int) -> Iterator[World]:
    dist.init_process_group(
        "cpu:fake,meta:fake", store=FakeStore(), rank=rank, world_size=plan.num_ranks
    )
    try:
        mesh = init_device_mesh(
            "cpu",
            (plan.pipeline_degree, plan.data_degree, plan.context_degree, plan.tensor_degree),
            mesh_dim_names=AXES,
        )
        yield World(
            rank=rank, size=plan.num_ranks, place=place_of(rank, plan), device=META, mesh=mesh
        )
    finally:
        dist.destroy_process_group()


def _names_of_groups(world: World) -> dict[str, str]:
    axes = {str(world.axis(axis).get_group().group_name): axis for axis in AXES}
    joint = world.group("data", "context")
    if joint is not None:
        axes[joint.group_name] = "data"
    return axes


@contextmanager
def _told(document: PlanDocument, account: Account) -> Iterator[None]:
    """Stages ask their neighbours for the shape of hidden states, and here nobody answers."""
    plan, workload = document.plan, document.workload
    shares = shares_of(plan, workload.recipe.global_batch)
    size = -(-max(shares) // num_micro_steps(plan, shares))
    shape = torch.Size((size, workload.seq_len, document.model.hidden))
    hidden = torch.empty(shape, device=META, requires_grad=True)

    def receive(stage: Any, source: int) -> Any:
        if source < stage.stage_index:
            return _StageForwardMeta(forward_metas=(extract_tensor_meta(hidden),))
        return _StageBackwardMeta(backward_metas=(extract_tensor_meta(hidden.detach()),))

    def vote(self: Any, *_: Any, **__: Any) -> torch.Tensor:
        return torch.zeros(1, dtype=torch.int32)

    def uncounted(prepare: Callable[..., Any]) -> Callable[..., Any]:
        def prepared(*args: Any, **kwargs: Any) -> Any:
            with account.paused():
                return prepare(*args, **kwargs)

        return prepared

    with (
        patch.object(
            PipelineStage, "_prepare_forward_infra", uncounted(PipelineStage._prepare_forward_infra)
        ),
        patch.object(
            PipelineStage,
            "_prepare_backward_infra",
            uncounted(PipelineStage._prepare_backward_infra),
        ),
        patch.object(PipelineStage, "_recv_meta", receive),
        patch.object(PipelineStage, "_send_meta", lambda *_: None),
        patch.object(PipelineStage, "_warmup_forward_vote", vote),
        patch.object(PipelineStage, "_warmup_backward_result", vote),
    ):
        yield
