"""One rank that saves and loads: `python -m tests.runtime.checkpoint_worker FOLDER ACT`.

Each rank holds a tensor of its own, as a pipeline's do, and one that all hold.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from pathlib import Path

import torch

from twofold.errors import EnvironmentLack
from twofold.plan import Plan
from twofold.runtime.train import checkpoints as module
from twofold.runtime.train.checkpoints import Checkpoints, Progress
from twofold.runtime.train.state import Saved, State
from twofold.runtime.train.world import World, joined

LIMIT_BYTES = 100_000


class Tensors:
    """State without a network."""

    def __init__(self, world: World) -> None:
        self.own = f"rank{world.rank}"
        self.tensors = {self.own: torch.zeros(100_000), "all": torch.zeros(10)}

    def fill(self, value: float) -> None:
        for tensor in self.tensors.values():
            tensor.fill_(value)

    def state(self) -> State:
        return {"network": self.tensors}

    def prepare(self, saved: Saved) -> None:
        self.fill(-1.0)

    def restore(self, state: State) -> None:
        assert all(tensor.unique().numel() == 1 for tensor in state["network"].values())


def main() -> None:
    folder, act = Path(sys.argv[1]), sys.argv[2]
    plan = Plan(micro_batch=1, data_degree=int(os.environ.get("WORLD_SIZE", "1")))
    with joined(plan, torch.device("cpu")) as world:
        held = Tensors(world)
        with Checkpoints(folder, held, world) as checkpoints:
            told = {"load": _load, "full": _full, "killed": _killed}[act](checkpoints, held)
        (folder.parent / f"told-{world.rank}.json").write_text(json.dumps(told))


def _load(checkpoints: Checkpoints, held: Tensors) -> object:
    progress = checkpoints.load_newest()
    return [progress.step, float(held.tensors[held.own][0])]


def _full(checkpoints: Checkpoints, held: Tensors) -> object:
    """The last rank's disk is full at the second save, and no longer at the third."""
    _save(checkpoints, held, 1)
    is_last = checkpoints.world.rank == checkpoints.world.size - 1
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    if is_last:
        resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT_BYTES, before[1]))
    told = None
    try:
        _save(checkpoints, held, 2)
    except EnvironmentLack as error:
        told = error.what
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    left = sorted(path.name for path in checkpoints.folder.iterdir())
    checkpoints.world.barrier()
    _save(checkpoints, held, 3)
    return [told, left]


def _killed(checkpoints: Checkpoints, held: Tensors) -> object:
    """All is written, and nothing renamed, when the process dies."""
    _save(checkpoints, held, 1)
    module._Writer.finish = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore
    _save(checkpoints, held, 2)
    raise AssertionError("it lives on")


def _save(checkpoints: Checkpoints, held: Tensors, step: int) -> None:
    """What is in use changes at once: the checkpoint is of the moment of the call."""
    held.fill(float(step))
    checkpoints.save(Progress(step=step))
    held.fill(99.0)
    checkpoints.finish()


if __name__ == "__main__":
    main()
