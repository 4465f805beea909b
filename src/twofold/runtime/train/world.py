"""The ranks of a run: who this process is among them, and how to leave them cleanly."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import PrefixStore, Store, TCPStore
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from twofold.errors import InputError
from twofold.plan import Plan
from twofold.policy import Place, place_of

AXES = ("pipeline", "data", "context", "tensor")
_TIMEOUT = timedelta(minutes=10)
_JOINS = itertools.count()


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """This rank's place. `mesh` has the four axes of `AXES`; None where one process runs alone."""

    rank: int
    size: int
    place: Place
    device: torch.device
    mesh: DeviceMesh | None

    @property
    def is_alone(self) -> bool:
        return self.mesh is None

    def axis(self, *names: str) -> DeviceMesh:
        """The ranks that differ from this one on these axes alone, the first axis outermost."""
        assert self.mesh is not None
        joint = self.mesh[names]
        return joint._flatten("_".join(names)) if len(names) > 1 else joint

    def group(self, *names: str) -> dist.ProcessGroup | None:
        """Those ranks as a group; None where that is this rank alone."""
        if self.mesh is None:
            return None
        axis = self.axis(*names)
        return axis.get_group() if axis.size() > 1 else None

    def everyone(self) -> dist.ProcessGroup | None:
        """All ranks; None where this one is alone."""
        return None if self.mesh is None else dist.group.WORLD

    def gather(self, values: list[float]) -> list[list[float]]:
        """The values of every rank, in rank order."""
        if self.mesh is None:
            return [values]
        mine = torch.tensor(values, dtype=torch.float64, device=self.device)
        every = [torch.empty_like(mine) for _ in range(self.size)]
        dist.all_gather(every, mine)
        return [row.tolist() for row in every]

    def barrier(self) -> None:
        if self.mesh is not None:
            dist.barrier()


def is_first_rank() -> bool:
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def joined(plan: Plan, device: torch.device) -> Iterator[World]:
    """Join the other ranks as the environment says (RANK, WORLD_SIZE, MASTER_ADDR ...)."""
    rank, size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if size != plan.num_ranks:
        raise InputError(
            f"the plan is for {plan.num_ranks} ranks and {size} were started",
            at="plan, degrees",
            help="start it with `twofold run`, which starts as many as the plan has",
        )
    if size == 1:
        yield World(rank=0, size=1, place=place_of(0, plan), device=device, mesh=None)
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        store=_store(rank, size),
        rank=rank,
        world_size=size,
        timeout=_TIMEOUT,
    )
    try:
        mesh = init_device_mesh(
            device.type,
            (plan.pipeline_degree, plan.data_degree, plan.context_degree, plan.tensor_degree),
            mesh_dim_names=AXES,
        )
        yield World(rank=rank, size=size, place=place_of(rank, plan), device=device, mesh=mesh)
    finally:
        dist.destroy_process_group()


def _store(rank: int, size: int) -> Store:
    """A key prefix per attempt keeps a restarted run from reading dead ranks' addresses, and one
    per plan that a process executes keeps the next from reading the last one's.

    The supervisor serves the store (TWOFOLD_STORE=hosted), as torchrun's agent does; started by
    hand, rank 0 does.
    """
    served = (
        os.environ.get("TWOFOLD_STORE") == "hosted"
        or os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    )
    store = TCPStore(
        os.environ["MASTER_ADDR"],
        int(os.environ["MASTER_PORT"]),
        size,
        is_master=rank == 0 and not served,
        timeout=_TIMEOUT,
    )
    attempt = os.environ.get("TWOFOLD_ATTEMPT", os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
    return PrefixStore(f"attempt{attempt}-{next(_JOINS)}", store)
