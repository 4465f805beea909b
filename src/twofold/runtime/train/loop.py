"""The training loop: one plan document in, `metrics.jsonl` and checkpoints out."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from twofold.document import PlanDocument
from twofold.errors import EnvironmentLack, InputError
from twofold.runtime.train.checkpoints import Checkpoints
from twofold.runtime.train.data import Batches, held_out_windows
from twofold.runtime.train.memory import peak_memory_bytes, reset_peak_memory
from twofold.runtime.train.metrics import MetricsFile, Row
from twofold.runtime.train.network import build_network, initialise
from twofold.runtime.train.optimizers import learning_rate_fraction, make_optimizers
from twofold.workload import Corpus
from twofold.workload.text import Part

_EVALUATION_BATCH = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """What a run is asked for beside the plan. `None` seconds: no checkpoints by time."""

    evaluate: tuple[Part, ...]
    evaluation_tokens: int
    checkpoint_every_s: float | None
    max_steps: int | None


class InterruptedRunError(Exception):
    """The run was asked to stop; its state is saved."""


class Clock:
    """The clock of the claim. It stands still while checkpoints are written."""

    def __init__(self, elapsed_s: float) -> None:
        self._before_s = elapsed_s
        self._start = time.perf_counter()

    def elapsed_s(self) -> float:
        return self._before_s + time.perf_counter() - self._start

    @contextmanager
    def paused(self) -> Iterator[None]:
        self._before_s = self.elapsed_s()
        yield
        self._start = time.perf_counter()


def train(
    document: PlanDocument, corpus: Corpus, folder: Path, options: RunOptions, started_at: float
) -> None:
    """Run the plan in `folder`, resuming from the newest checkpoint in it.

    The clock of the claim starts at the first touch of training data and stops after the last
    optimizer step; building, warming up, evaluating and checkpointing are told apart from it.
    """
    _check_vocabulary(corpus, document)
    stepper = Stepper(document, pick_device(document))
    stepper.warm_up()
    checkpoints = Checkpoints(folder / "checkpoints", stepper.network, stepper.optimizers)
    first_step, clock_s = checkpoints.load_newest()
    num_steps = min(document.workload.num_steps, options.max_steps or document.workload.num_steps)
    start = {
        "event": "start",
        "step": first_step,
        "num_steps": num_steps,
        "tokens_per_step": document.workload.tokens_per_step,
        "startup_s": time.time() - started_at,
        "num_parameters": sum(p.numel() for p in stepper.network.parameters()),
        "device": str(stepper.device),
    }
    with MetricsFile(folder / "metrics.jsonl", keep_steps=first_step) as metrics:
        metrics.write(start)
        end = _train_steps(
            stepper, corpus, checkpoints, metrics, range(first_step, num_steps), clock_s, options
        )
        for part in options.evaluate:
            metrics.write(_evaluation(stepper, corpus, part, options.evaluation_tokens))
        metrics.write({"event": "end", "startup_s": start["startup_s"], **end})


def _train_steps(
    stepper: Stepper,
    corpus: Corpus,
    checkpoints: Checkpoints,
    metrics: MetricsFile,
    steps: range,
    clock_s: float,
    options: RunOptions,
) -> Row:
    """The steps on the clock; returns what they took."""
    document = stepper.document
    workload, recipe = document.workload, document.workload.recipe
    batches = Batches(corpus.tokens("train"), workload.seq_len, document.seed)
    times_s: list[float] = []
    done = steps.start
    reset_peak_memory(stepper.device)
    cpu_start_s = time.process_time()
    clock = Clock(clock_s)
    saved_at_s = clock.elapsed_s()
    for step in steps:
        began_s = clock.elapsed_s()
        fraction = learning_rate_fraction(recipe, step, workload.num_steps)
        stepper.set_rates(fraction)
        loss, norm = stepper.step(batches.batch(step * recipe.global_batch, recipe.global_batch))
        loss_value = float(loss)
        done = step + 1
        now_s = clock.elapsed_s()
        times_s.append(now_s - began_s)
        metrics.write(
            {
                "event": "step",
                "step": step + 1,
                "tokens": (step + 1) * workload.tokens_per_step,
                "time_s": now_s,
                "step_time_s": times_s[-1],
                "loss": loss_value,
                "gradient_norm": float(norm),
                "learning_rate_fraction": fraction,
            }
        )
        if not math.isfinite(loss_value):
            metrics.write({"event": "diverged", "step": step + 1})
            break
        every_s = options.checkpoint_every_s
        if stop_requested() or (every_s is not None and now_s - saved_at_s >= every_s):
            with clock.paused():
                checkpoints.save(step + 1, clock.elapsed_s())
            metrics.write({"event": "checkpoint", "step": step + 1})
            saved_at_s = clock.elapsed_s()
            if stop_requested():
                raise InterruptedRunError(f"step {step + 1} of {steps.stop}")
    train_s = clock.elapsed_s()
    metrics.write({"event": "trained", "step": done, "train_s": train_s})
    if options.checkpoint_every_s is not None and done == steps.stop:
        checkpoints.save(done, train_s)
    return {
        "train_s": train_s,
        "cpu_s": time.process_time() - cpu_start_s,
        "tokens": done * workload.tokens_per_step,
        "num_steps": done,
        "step_time_median_s": statistics.median(times_s) if times_s else None,
        "peak_memory_bytes": peak_memory_bytes(stepper.device),
    }


def _evaluation(stepper: Stepper, corpus: Corpus, part: Part, num_tokens: int) -> Row:
    seq_len = stepper.document.workload.seq_len
    windows = held_out_windows(corpus.tokens(part), seq_len, num_tokens)
    loss = stepper.evaluate(windows)
    return {
        "event": "evaluation",
        "part": part,
        "loss": loss if math.isfinite(loss) else None,
        "tokens": windows.shape[0] * seq_len,
    }


class Stepper:
    """One optimizer step over a global batch, in micro-batches, at the plan's precision."""

    def __init__(self, document: PlanDocument, device: torch.device) -> None:
        plan, recipe = document.plan, document.workload.recipe
        torch.set_num_threads(plan.threads)
        torch.backends.cuda.matmul.allow_tf32 = plan.precision == "tf32"
        network = build_network(document.model, attention=plan.attention, recompute=plan.recompute)
        initialise(network, recipe.initialisation, document.seed)
        self.document = document
        self.device = device
        self.network = network.to(device).train()
        self.optimizers = make_optimizers(self.network, recipe, plan)
        self._peak_rates = [[g["lr"] for g in o.param_groups] for o in self.optimizers]
        self.forward = torch.compile(self._loss) if plan.compile else self._loss

    def set_rates(self, fraction: float) -> None:
        """Learning rates at a fraction of their peaks."""
        for optimizer, peaks in zip(self.optimizers, self._peak_rates, strict=True):
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = peak * fraction

    def step(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        """Samples [global_batch, seq_len + 1] -> mean loss and gradient norm, both 0-d."""
        total = torch.zeros((), device=self.device)
        for micro in batch.split(self.document.plan.micro_batch):
            share = micro.shape[0] / batch.shape[0]
            loss = self._forward_loss(micro.to(self.device, non_blocking=True)) * share
            loss.backward()
            total += loss.detach()
        norm = nn.utils.clip_grad_norm_(
            self.network.parameters(), self.document.workload.recipe.gradient_clip
        )
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return total, norm

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
        """Mean loss in nats per token over windows [n, seq_len + 1]."""
        self.network.eval()
        total, count = 0.0, 0
        for rows in windows.split(_EVALUATION_BATCH):
            with self._autocast():
                loss = self._loss(rows.to(self.device))
            total += float(loss) * rows.shape[0]
            count += rows.shape[0]
        self.network.train()
        return total / count

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


_stop = False


def request_stop(*_: object) -> None:
    """Signal handler: finish the step, save, and leave."""
    global _stop
    _stop = True


def stop_requested() -> bool:
    return _stop


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


def _check_vocabulary(corpus: Corpus, document: PlanDocument) -> None:
    if corpus.vocab > document.model.vocab:
        raise InputError(
            f"the text has token {corpus.vocab - 1}, the model a vocabulary of "
            f"{document.model.vocab}",
            at=f"model '{document.model.name}', vocab",
            help=f"use a vocabulary of at least {corpus.vocab}",
        )
