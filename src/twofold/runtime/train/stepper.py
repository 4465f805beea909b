"""One optimizer step over this rank's part of a global batch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.distributed.fsdp import FSDPModule

from twofold.document import PlanDocument
from twofold.errors import EnvironmentLack
from twofold.plan import Plan
from twofold.policy import even_shares, micro_batches, num_micro_steps
from twofold.runtime.train.balance import Balance
from twofold.runtime.train.gradients import SummedGradients
from twofold.runtime.train.local_updates import LocalState, LocalUpdates
from twofold.runtime.train.optimizers import make_optimizers
from twofold.runtime.train.parallel import make_network, make_pass
from twofold.runtime.train.parallel.data import ShardedGradients
from twofold.runtime.train.parallel.norms import GradientClip
from twofold.runtime.train.state import Held, TrainingState
from twofold.runtime.train.support import refuse_unsupported
from twofold.runtime.train.world import World

_EVALUATION_BATCH = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a rank wants after the step: to stop the run, to save it."""

    stop: bool
    save: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """A rank's step: from `began_at` (seconds since the epoch) it computed so many sequences.

    `compute_s` are the passes without the collectives inside them, `wait_s` all collectives that
    the rank waited for.
    """

    began_at: float
    sequences: int
    compute_s: float
    wait_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """The mean loss over the global batch, and how the ranks spent the step.

    `stop` and `save` are the wish of any rank, and the same on all, as is `diverged` and as are
    `events`: what the metrics should tell beside the step. `spent` is this rank's own.
    """

    loss: float
    gradient_norm: float
    stop: bool
    save: bool
    spent: Spent
    events: tuple[dict[str, Any], ...]
    diverged: bool

    @classmethod
    def of_one(cls, loss: float, gradient_norm: float, spent: Spent) -> StepResult:
        """Of a rank that did not meet the others: its own loss, over its share."""
        return cls(
            loss=loss,
            gradient_norm=gradient_norm,
            stop=False,
            save=False,
            spent=spent,
            events=(),
            diverged=False,
        )


class Stepper:
    """One optimizer step over a global batch, in micro-batches, at the plan's precision."""

    def __init__(self, document: PlanDocument, world: World) -> None:
        refuse_unsupported(document)
        plan, recipe = document.plan, document.workload.recipe
        torch.set_num_threads(plan.threads)
        torch.backends.cuda.matmul.allow_tf32 = plan.precision == "tf32"
        self.document = document
        self.world = world
        self.device = world.device
        self.balance = Balance(plan, recipe.global_batch)
        self.network = make_network(document, world).train()
        self.passes = make_pass(self.network, document, world)
        self.optimizers = make_optimizers(self.network, recipe, plan)
        self.local = self._local_updates() if plan.local_steps else None
        self.gradients = self._make_gradients()
        self.clip = self._make_clip()
        self._peak_rates = [[g["lr"] for g in o.param_groups] for o in self.optimizers]

    @property
    def shares(self) -> tuple[int, ...]:
        """The sequences of every data rank in the next step."""
        return self.balance.shares

    @shares.setter
    def shares(self, shares: tuple[int, ...]) -> None:
        self.balance.shares = shares

    def my_samples(self, step: int) -> tuple[int, int]:
        """(first, count): this data rank's samples of a step, in the order of the whole run."""
        before = sum(self.shares[: self.world.place.data])
        first = step * self.document.workload.recipe.global_batch + before
        return first, self.shares[self.world.place.data]

    def weight(self) -> float:
        """This data rank's share of the tokens."""
        return self.shares[self.world.place.data] / self.document.workload.recipe.global_batch

    def held(self) -> Held:
        """What a checkpoint holds."""
        own = TrainingState(self.network, self.optimizers)
        return own if self.local is None else LocalState(self.local, own)

    def close(self) -> None:
        """Before the ranks part: nothing may be under way."""
        if self.local is not None:
            self.local.close()

    def set_rates(self, fraction: float) -> None:
        """Learning rates at a fraction of their peaks."""
        for optimizer, peaks in zip(self.optimizers, self._peak_rates, strict=True):
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = peak * fraction

    def step(self, rows: Tensor, *, wish: Callable[[], Wish]) -> StepResult:
        """One step on this rank's rows [share, seq_len + 1]; every rank gets the same result."""
        began_at, start_s = time.time(), time.perf_counter()
        total = self.forward_backward(rows)
        passed_s = self._now_s()
        waited_s = self.gradients.take_waited_s()
        self.gradients.finish()
        spent = Spent(
            began_at=began_at,
            sequences=rows.shape[0],
            compute_s=passed_s - start_s - waited_s,
            wait_s=waited_s + time.perf_counter() - passed_s,
        )
        norm = self.clip()
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if self.local is not None and not self.local.after_step():
            return StepResult.of_one(float(total), float(norm), spent)
        mine = wish()
        loss = float(total) * (self.weight() if self.local else 1.0)
        updated_s = time.perf_counter()
        every = self.world.gather([loss, spent.compute_s, float(mine.stop), float(mine.save)])
        if self.local is not None:
            self.local.go_on()
        loss = self._sum_of_losses([row[0] for row in every])
        spent = replace(spent, wait_s=spent.wait_s + time.perf_counter() - updated_s)
        return StepResult(
            loss=loss,
            gradient_norm=float(norm),
            stop=any(row[2] for row in every),
            save=any(row[3] for row in every),
            spent=spent,
            events=tuple(self.balance.observe([row[1] for row in every])),
            diverged=not math.isfinite(loss),
        )

    def forward_backward(self, rows: Tensor) -> Tensor:
        """The passes of a step; gradients may still be on their way."""
        plan, recipe = self.document.plan, self.document.workload.recipe
        sizes = micro_batches(rows.shape[0], num_micro_steps(plan, self.shares))
        sequences = rows.shape[0] if self.local else recipe.global_batch
        return self.passes.forward_backward(
            rows.split(sizes),
            sequence_weight=1 / (sequences * plan.context_degree),
            before_last=self.gradients.arm,
        )

    def warm_up(self) -> None:
        """Compile and touch every kernel on made-up tokens, leaving no trace in the weights."""
        plan, workload = self.document.plan, self.document.workload
        tokens = torch.zeros((plan.micro_batch, workload.seq_len + 1), dtype=torch.int64)
        state = torch.get_rng_state()
        self.passes.forward_backward([tokens], sequence_weight=1.0, before_last=self.gradients.arm)
        self.gradients.finish()
        self.gradients.take_waited_s()
        for parameter in self.network.parameters():
            parameter.grad = None
        torch.set_rng_state(state)
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    @torch.no_grad()
    def evaluate(self, windows: Tensor) -> float:
        """Mean loss in nats per token over windows [n, seq_len + 1], shared by the data ranks.

        All enter the same number of passes, because passes may hold collectives; a rank without
        windows computes one that counts nothing.
        """
        self.network.eval()
        shares = even_shares(windows.shape[0], self.document.plan.data_degree)
        first = sum(shares[: self.world.place.data])
        count = shares[self.world.place.data]
        mine = windows[first : first + count] if count else windows[:1]
        steps = -(-max(shares) // _EVALUATION_BATCH)
        with self.local.shared_weights() if self.local else nullcontext():
            total = float(self.passes.evaluate(mine.split(micro_batches(mine.shape[0], steps))))
        self.network.train()
        if isinstance(self.network, FSDPModule):
            self.network.reshard()
        every = self.world.gather([total if count else 0.0])
        plan = self.document.plan
        return self._sum_of_losses([row[0] for row in every]) / (
            windows.shape[0] * plan.context_degree
        )

    def _local_updates(self) -> LocalUpdates:
        return LocalUpdates(
            self.network,
            self.document.workload.recipe,
            self.document.plan,
            self.world,
            num_steps=self.document.workload.num_steps,
            weight=self.weight,
        )

    def _now_s(self) -> float:
        """The time when this rank's own kernels have ended, without waits for others."""
        if self.device.type == "cuda" and not self.world.is_alone:
            torch.cuda.current_stream().synchronize()
        return time.perf_counter()

    def _make_gradients(self) -> SummedGradients | ShardedGradients:
        if isinstance(self.network, FSDPModule):
            return ShardedGradients(self.network, self.document.plan)
        over = None if self.local else self.world.group("data", "context")
        return SummedGradients(self.network.parameters(), over)

    def _make_clip(self) -> GradientClip:
        """Over all ranks where they hold unlike parts."""
        plan = self.document.plan
        return GradientClip(
            self.network.parameters(),
            self.document.workload.recipe.gradient_clip,
            group=self.world.everyone() if _is_spread(plan) else None,
            pipeline_degree=plan.pipeline_degree,
            repeated=self.passes.repeated,
        )

    def _sum_of_losses(self, losses: list[float]) -> float:
        """Over all ranks but those that repeat another's: tensor ranks share one loss."""
        return sum(losses[:: self.document.plan.tensor_degree])


def _is_spread(plan: Plan) -> bool:
    """Whether ranks hold unlike parts of the weights or of their gradients."""
    axes = plan.tensor_degree * plan.pipeline_degree * plan.expert_degree
    return axes > 1 or plan.zero_stage > 0


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
