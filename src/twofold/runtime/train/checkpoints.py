"""Checkpoints that are whole or absent: written aside, then renamed."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from twofold.errors import EnvironmentLack
from twofold.runtime.train.world import World

_KEPT = 2


class Checkpoints:
    """The checkpoints of one run: network, optimizers, steps done and the clock."""

    def __init__(
        self,
        folder: Path,
        network: nn.Module,
        optimizers: list[torch.optim.Optimizer],
        world: World,
    ) -> None:
        self.folder = folder
        self.network = network
        self.optimizers = optimizers
        self.world = world

    def save(self, step: int, clock_s: float) -> None:
        """Write the state after `step` steps; the two newest checkpoints are kept."""
        scratch = self.folder / f".step-{step:08d}"
        try:
            if self.world.rank == 0:
                shutil.rmtree(scratch, ignore_errors=True)
                self.folder.mkdir(parents=True, exist_ok=True)
            self.world.barrier()
            with _quiet():
                save(self._state(step, clock_s), checkpoint_id=scratch)
            self.world.barrier()
            if self.world.rank == 0:
                final = self.folder / f"step-{step:08d}"
                shutil.rmtree(final, ignore_errors=True)
                scratch.rename(final)
                _sync(self.folder)
        except (OSError, CheckpointException) as error:
            shutil.rmtree(scratch, ignore_errors=True)
            raise EnvironmentLack(
                f"the checkpoint of step {step} cannot be written: {error}",
                at=str(self.folder),
                help="free some space; the run resumes from the last checkpoint that is whole",
            ) from error
        for old in self._whole()[:-_KEPT] if self.world.rank == 0 else ():
            shutil.rmtree(old, ignore_errors=True)

    def load_newest(self) -> tuple[int, float]:
        """Restore the newest checkpoint in place: (steps done, clock). (0, 0) without one."""
        found = self._whole()
        if not found:
            return 0, 0.0
        for optimizer in self.optimizers:
            _materialise(optimizer)
        state = self._state(0, 0.0)
        with _quiet():
            load(state, checkpoint_id=found[-1])
        self.network.load_state_dict(state["network"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        return int(state["step"]), float(state["clock_s"])

    def _whole(self) -> list[Path]:
        return sorted(self.folder.glob("step-*")) if self.folder.is_dir() else []

    def _state(self, step: int, clock_s: float) -> dict[str, Any]:
        return {
            "network": self.network.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "step": torch.tensor(step),
            "clock_s": torch.tensor(clock_s, dtype=torch.float64),
        }


@contextmanager
def _quiet() -> Iterator[None]:
    """torch warns that no process group exists; one process needs none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _materialise(optimizer: torch.optim.Optimizer) -> None:
    """Give a fresh optimizer the state tensors that loading fills, changing no parameter."""
    for group in optimizer.param_groups:
        rate, decay = group["lr"], group["weight_decay"]
        kept = [parameter.detach().clone() for parameter in group["params"]]
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
        group["lr"], group["weight_decay"] = 0.0, 0.0
        optimizer.step()
        group["lr"], group["weight_decay"] = rate, decay
        with torch.no_grad():
            for parameter, value in zip(group["params"], kept, strict=True):
                parameter.copy_(value)
                parameter.grad = None


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
