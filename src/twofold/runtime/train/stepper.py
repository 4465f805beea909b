"""One optimizer step over this rank's part of a global batch."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from twofold.document import PlanDocument
from twofold.errors import EnvironmentLack
from twofold.policy import micro_batches, num_micro_steps, shares_of
from twofold.runtime.train.gradients import SummedGradients
from twofold.runtime.train.network import build_network, initialise
from twofold.runtime.train.optimizers import make_optimizers
from twofold.runtime.train.world import World

_EVALUATION_BATCH = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a rank wants after the step: to stop the run, to save it."""

    stop: bool
    save: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """The mean loss over the global batch, and how the ranks spent the step.

    `compute_s` is each rank's time until its last backward pass ended; `stop` and `save` are the
    wish of any rank, and the same on all.
    """

    loss: float
    gradient_norm: float
    compute_s: tuple[float, ...]
    stop: bool
    save: bool


class Stepper:
    """One optimizer step over a global batch, in micro-batches, at the plan's precision.

    `shares` are the sequences of every data rank; they may change between steps.
    """

    def __init__(self, document: PlanDocument, world: World) -> None:
        plan, recipe = document.plan, document.workload.recipe
        torch.set_num_threads(plan.threads)
        torch.backends.cuda.matmul.allow_tf32 = plan.precision == "tf32"
        network = build_network(document.model, attention=plan.attention, recompute=plan.recompute)
        initialise(network, recipe.initialisation, document.seed)
        self.document = document
        self.world = world
        self.device = world.device
        self.shares = shares_of(plan, recipe.global_batch)
        self.network = network.to(world.device).train()
        self.optimizers = make_optimizers(self.network, recipe, plan)
        self.gradients = SummedGradients(self.network.parameters(), world.group("data", "context"))
        self._peak_rates = [[g["lr"] for g in o.param_groups] for o in self.optimizers]
        self.forward = torch.compile(self._loss) if plan.compile else self._loss

    def my_samples(self, step: int) -> tuple[int, int]:
        """(first, count): this data rank's samples of a step, in the order of the whole run."""
        before = sum(self.shares[: self.world.place.data])
        first = step * self.document.workload.recipe.global_batch + before
        return first, self.shares[self.world.place.data]

    def set_rates(self, fraction: float) -> None:
        """Learning rates at a fraction of their peaks."""
        for optimizer, peaks in zip(self.optimizers, self._peak_rates, strict=True):
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = peak * fraction

    def step(self, rows: Tensor, *, wish: Callable[[], Wish]) -> StepResult:
        """One step on this rank's rows [share, seq_len + 1]; every rank gets the same result."""
        plan, recipe = self.document.plan, self.document.workload.recipe
        start_s = time.perf_counter()
        sizes = micro_batches(rows.shape[0], num_micro_steps(plan, self.shares))
        total = torch.zeros((), device=self.device)
        for index, micro in enumerate(rows.split(sizes)):
            if index == len(sizes) - 1:
                self.gradients.arm()
            weight = micro.shape[0] / recipe.global_batch
            loss = self._forward_loss(micro.to(self.device, non_blocking=True)) * weight
            loss.backward()
            total += loss.detach()
        compute_s = time.perf_counter() - start_s
        self.gradients.finish()
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), recipe.gradient_clip)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        mine = wish()
        every = self.world.gather([float(total), compute_s, float(mine.stop), float(mine.save)])
        return StepResult(
            loss=sum(row[0] for row in every),
            gradient_norm=float(norm),
            compute_s=tuple(row[1] for row in every),
            stop=any(row[2] for row in every),
            save=any(row[3] for row in every),
        )

    def warm_up(self) -> None:
        """Compile and touch every kernel on made-up tokens, leaving no trace in the weights."""
        plan, workload = self.document.plan, self.document.workload
        tokens = torch.zeros(
            (plan.micro_batch, workload.seq_len + 1), dtype=torch.int64, device=self.device
        )
        state = torch.get_rng_state()
        self._forward_loss(tokens).backward()
        for parameter in self.network.parameters():
            parameter.grad = None
        torch.set_rng_state(state)
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    @torch.no_grad()
    def evaluate(self, windows: Tensor) -> float:
        """Mean loss in nats per token over windows [n, seq_len + 1], shared by the ranks."""
        self.network.eval()
        total, count = 0.0, 0
        mine = windows[self.world.rank :: self.world.size]
        for rows in mine.split(_EVALUATION_BATCH):
            with self._autocast():
                loss = self._loss(rows.to(self.device))
            total += float(loss) * rows.shape[0]
            count += rows.shape[0]
        self.network.train()
        every = self.world.gather([total, float(count)])
        return sum(row[0] for row in every) / sum(row[1] for row in every)

    def _forward_loss(self, rows: Tensor) -> Tensor:
        with self._autocast():
            loss: Tensor = self.forward(rows)
        return loss

    def _loss(self, rows: Tensor) -> Tensor:
        logits = self.network(rows[:, :-1])
        return F.cross_entropy(logits.flatten(0, 1).float(), rows[:, 1:].flatten())

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.document.plan.precision == "bf16":
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return nullcontext()


def pick_device(document: PlanDocument) -> torch.device:
    """The device of the plan's pool; an accelerator that is not here is refused."""
    kind = document.fleet.pool(document.plan.pool).node.accelerator.kind
    if kind == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise EnvironmentLack(
            f"the plan is for a {kind}, and PyTorch sees none here",
            at="plan, pool",
            help="run it where the device is, or plan again for this machine",
        )
    return torch.device("cuda")
