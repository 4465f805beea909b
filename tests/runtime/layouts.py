"""One training under many layouts of ranks, in the same processes: starting those is what costs.

A rank trains every case of `FOLDER/cases.pt`, and the first rank writes what each came to into
`FOLDER/trained.pt`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from tests.fleets import plain_fleet
from tests.runtime import ranks
from twofold.document import PlanDocument, make_document
from twofold.model import Model
from twofold.plan import Plan
from twofold.policy import place_of
from twofold.runtime.train import gradients
from twofold.runtime.train.data import Batches
from twofold.runtime.train.optimizers import learning_rate_fraction
from twofold.runtime.train.parallel import build
from twofold.runtime.train.parallel.context import SequencePieces, make_pieces
from twofold.runtime.train.stepper import Stepper, Wish
from twofold.runtime.train.world import World, joined
from twofold.workload import Recipe, Train

STEPS, SEQ_LEN = 20, 32

LOSS, NORM, GRADIENT, WEIGHT = 1e-5, 1e-4, 1e-4, 1e-4
"""Largest differences allowed over 20 steps in fp32: of losses; of gradient norms (relative); of
gradients, to each tensor's largest; of weights. Sums are taken in another order, and Adam divides
small gradients by their own size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """`plant` names an error that the ranks are to make."""

    model: Model
    plan: dict[str, Any]
    recipe: Recipe = ranks.RECIPE
    plant: str | None = None

    def document(self) -> PlanDocument:
        recipe = self.recipe
        workload = Train(
            text="made up",
            tokens=STEPS * recipe.global_batch * SEQ_LEN,
            seq_len=SEQ_LEN,
            recipe=recipe,
        )
        return make_document(
            model=self.model, workload=workload, fleet=plain_fleet(),
            plan=Plan(**({"micro_batch": recipe.global_batch} | self.plan)), estimate=None, seed=7,
            twofold_version="test",
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Came:
    """What a training came to; gradients are of the first step and of one after the last."""

    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    gradients: list[dict[str, Tensor]] = field(default_factory=list)
    weights: dict[str, Tensor] = field(default_factory=dict)

    def differs_from(self, other: Came) -> tuple[float, float, float, float]:
        """Largest differences, as the tolerances count them."""
        losses = max(abs(a - b) for a, b in zip(self.losses, other.losses, strict=True))
        norms = max(abs(a / b - 1) for a, b in zip(self.norms, other.norms, strict=True))
        slopes = 0.0
        for mine, theirs in zip(self.gradients, other.gradients, strict=True):
            assert mine.keys() == theirs.keys()
            for name, value in theirs.items():
                largest = float(value.abs().max()) + 1e-12
                slopes = max(slopes, float((mine[name] - value).abs().max()) / largest)
        assert self.weights.keys() == other.weights.keys()
        weights = max(float((self.weights[n] - w).abs().max()) for n, w in other.weights.items())
        return losses, norms, slopes, weights

    def is_like(self, other: Came) -> bool:
        limits = (LOSS, NORM, GRADIENT, WEIGHT)
        return all(a < b for a, b in zip(self.differs_from(other), limits, strict=True))


def train_alone(case: Case) -> Came:
    """The same training on this process alone, without any layout."""
    document = replace(case, plan={}).document()
    place = place_of(0, document.plan)
    world = World(rank=0, size=1, place=place, device=torch.device("cpu"), mesh=None)
    return _train(document, world)


def train_cases(folder: Path, cases: dict[str, Case]) -> dict[str, Came]:
    """Every case, those of as many ranks in the same processes."""
    by_ranks: dict[int, dict[str, Case]] = {}
    for name, case in cases.items():
        by_ranks.setdefault(case.document().plan.num_ranks, {})[name] = case
    came = {}
    for num_ranks, some in by_ranks.items():
        (folder / str(num_ranks)).mkdir()
        came |= _train_on(folder / str(num_ranks), some, num_ranks)
    return came


def _train_on(folder: Path, cases: dict[str, Case], num_ranks: int) -> dict[str, Came]:
    ports = {name: ranks.free_port() for name in cases}
    torch.save((cases, ports), folder / "cases.pt")
    shared = {"WORLD_SIZE": str(num_ranks), "MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1"}
    processes = []
    for rank in range(num_ranks):
        with (folder / f"rank-{rank}.log").open("wb") as log:
            own = {"RANK": str(rank), "LOCAL_RANK": str(rank), "GLOO_SOCKET_IFNAME": "lo"}
            processes.append(
                subprocess.Popen(
                    [sys.executable, "-c", f"from {__name__} import main; main()", str(folder)],
                    env={**os.environ, **shared, **own},
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            )
    try:
        codes = [process.wait(timeout=600) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    if any(codes):
        logs = [(folder / f"rank-{rank}.log").read_text()[-3000:] for rank in range(num_ranks)]
        raise AssertionError(f"ranks ended with {codes}:\n" + "\n".join(logs))
    trained: dict[str, Came] = torch.load(folder / "trained.pt", weights_only=False)
    return trained


def main() -> None:
    folder = Path(sys.argv[1])
    cases, ports = torch.load(folder / "cases.pt", weights_only=False)
    trained = {}
    for name, case in cases.items():
        document = case.document()
        os.environ["MASTER_PORT"] = str(ports[name])
        with joined(document.plan, torch.device("cpu")) as world, _planted(case.plant):
            trained[name] = _train(document, world)
            world.barrier()
    if os.environ["RANK"] == "0":
        torch.save(trained, folder / "trained.pt")


def _train(document: PlanDocument, world: World) -> Came:
    stepper = Stepper(document, world)
    steps = np.random.default_rng(3).integers(-2, 4, size=20_000)
    tokens = (steps.cumsum() % document.model.vocab).astype(np.uint16)
    batches = Batches(tokens, SEQ_LEN, document.seed)
    came = Came()
    for step in range(STEPS + 1):
        rows = batches.batch(*stepper.my_samples(step))
        if step in (0, STEPS):
            stepper.forward_backward(rows)
            stepper.gradients.finish()
            came.gradients.append(_whole({n: p.grad for n, p in _named(stepper)}))
            stepper.network.zero_grad(set_to_none=True)
        if step < STEPS:
            stepper.set_rates(learning_rate_fraction(document.workload.recipe, step, STEPS))
            result = stepper.step(rows, wish=lambda: Wish(stop=False, save=False))
            came.losses.append(result.loss)
            came.norms.append(result.gradient_norm)
    came.weights.update(_whole(dict(_named(stepper))))
    return came


def _named(stepper: Stepper) -> list[tuple[str, torch.nn.Parameter]]:
    return list(stepper.network.named_parameters())


def _whole(tensors: dict[str, Any]) -> dict[str, Tensor]:
    """Of shards, all of them together."""
    return {
        name: (t.full_tensor() if isinstance(t, DTensor) else t).detach().clone()
        for name, t in tensors.items()
    }


def _planted(plant: str | None) -> AbstractContextManager[Any]:
    if plant == "positions":
        return mock.patch.object(build, "make_pieces", _from_the_start)
    if plant == "expert group":
        return mock.patch.object(gradients, "_summed_over", lambda parameter, group: group)
    assert plant is None
    return nullcontext()


def _from_the_start(document: PlanDocument, world: World) -> SequencePieces | None:
    """Every rank takes its first token for the first of the sequence."""
    pieces = make_pieces(document, world)
    assert pieces is not None
    return replace(pieces, positions=pieces.positions - pieces.positions[0])
