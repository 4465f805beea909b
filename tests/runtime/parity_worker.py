"""One rank that trains case after case: `python -m tests.runtime.parity_worker FOLDER`.

FOLDER/cases.pickle holds them; FOLDER/<case>-<rank>.pt is what each leaves.
"""

from __future__ import annotations

import os
import pickle
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from tests.fleets import plain_fleet
from tests.runtime.parity_cases import SEQ_LEN, STEPS, Case, Planted, Throttle
from twofold.document import PlanDocument, make_document
from twofold.runtime.train import gradients
from twofold.runtime.train.data import Batches
from twofold.runtime.train.optimizers import learning_rate_fraction
from twofold.runtime.train.parallel import build
from twofold.runtime.train.parallel.context import SequencePieces, make_pieces
from twofold.runtime.train.stepper import Stepper, Wish
from twofold.runtime.train.world import World, joined
from twofold.workload import Train

_TOKENS = 40_000


def main() -> None:
    folder = Path(sys.argv[1])
    cases: list[Case] = pickle.loads((folder / "cases.pickle").read_bytes())
    for index, case in enumerate(cases):
        os.environ["TWOFOLD_ATTEMPT"] = str(index)
        print(case.name, flush=True)
        document = document_of(case)
        with joined(document.plan, torch.device("cpu")) as world, _planted(case.planted):
            result = _train(Stepper(document, world), case)
            torch.save(result, folder / f"{index}-{world.rank}.pt")
            world.barrier()


def document_of(case: Case) -> PlanDocument:
    return make_document(
        model=case.model,
        workload=Train(
            text="made up",
            tokens=STEPS * case.recipe.global_batch * SEQ_LEN,
            seq_len=SEQ_LEN,
            recipe=case.recipe,
        ),
        fleet=plain_fleet(),
        plan=case.full_plan(),
        estimate=None,
        seed=7,
        twofold_version="test",
    )


def _train(stepper: Stepper, case: Case) -> dict[str, Any]:
    workload = stepper.document.workload
    batches = Batches(_tokens(case.model.vocab), SEQ_LEN, stepper.document.seed)
    stepper.warm_up()
    first: dict[str, Tensor] = {}
    stepper.clip = _recording(stepper.clip, stepper.network, first)  # type: ignore[assignment]
    if case.planted == "mean over ranks":
        _average_over_ranks(stepper)
    losses, norms, shares = [], [], []
    for step in range(STEPS):
        stepper.shares = case.shares_at.get(step, stepper.shares)
        stepper.set_rates(learning_rate_fraction(workload.recipe, step, STEPS))
        rows = batches.batch(*stepper.my_samples(step))
        shares.append(stepper.shares)
        if case.throttle is not None and step == case.throttle.from_step:
            _throttle(stepper, case.throttle)
        result = stepper.step(rows, wish=lambda: Wish(stop=False, save=False))
        losses.append(result.loss)
        norms.append(result.gradient_norm)
    held_out = batches.batch(STEPS * workload.recipe.global_batch, 37)
    return {
        "losses": losses,
        "norms": norms,
        "shares": shares,
        "held_out": stepper.evaluate(held_out),
        "gradients": first,
        "weights": {n: _whole(p.detach()) for n, p in stepper.network.named_parameters()},
    }


def _recording(
    clip: Callable[[], Tensor], network: nn.Module, first: dict[str, Tensor]
) -> Callable[[], Tensor]:
    """The clip, which keeps the first step's gradients as they are before it."""

    def recorded() -> Tensor:
        if not first:
            for name, parameter in network.named_parameters():
                assert parameter.grad is not None, name
                first[name] = _whole(parameter.grad).clone()
        return clip()

    return recorded


def _planted(planted: Planted | None) -> AbstractContextManager[Any]:
    """Mistakes in how a network and its gradients are spread, made before those are."""
    if planted == "positions from the start":
        return mock.patch.object(build, "make_pieces", _pieces_from_the_start)
    if planted == "unlike experts summed":
        return mock.patch.object(gradients, "_summed_over", lambda parameter, group: group)
    return nullcontext()


def _pieces_from_the_start(document: PlanDocument, world: World) -> SequencePieces | None:
    """Every rank takes its first token for the first of the sequence."""
    pieces = make_pieces(document, world)
    assert pieces is not None
    return replace(pieces, positions=pieces.positions - pieces.positions[0])


def _throttle(stepper: Stepper, throttle: Throttle) -> None:
    def wait(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        time.sleep(throttle.seconds * inputs[0].shape[0])

    if stepper.world.rank == throttle.rank:
        stepper.network.register_forward_pre_hook(wait)


def _average_over_ranks(stepper: Stepper) -> None:
    """The common mistake: each rank's mean loss counts alike, however many sequences it had."""
    right = stepper.passes.forward_backward

    def wrong(micros: Any, *, sequence_weight: float, before_last: Any) -> Tensor:
        del sequence_weight
        rows = sum(micro.shape[0] for micro in micros)
        weight = 1 / (rows * stepper.document.plan.data_degree)
        return right(micros, sequence_weight=weight, before_last=before_last)

    stepper.passes.forward_backward = wrong  # type: ignore[method-assign]


def _tokens(vocab: int) -> np.ndarray[Any, np.dtype[np.uint16]]:
    """A text that can be learned in part: each token follows from the last, or from chance."""
    generator = np.random.default_rng(3)
    steps = np.where(generator.random(_TOKENS) < 0.7, 7, generator.integers(0, vocab, _TOKENS))
    return (np.cumsum(steps) % vocab).astype(np.uint16)


def _whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor.clone()


if __name__ == "__main__":
    main()
