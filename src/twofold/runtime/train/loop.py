"""The training loop: one plan document in, `metrics.jsonl` and checkpoints out."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from twofold.document import PlanDocument
from twofold.errors import InputError
from twofold.policy.checkpointing import Interval, failures_of_plan_per_s
from twofold.runtime.train.cadence import Cadence
from twofold.runtime.train.checkpoints import Checkpoints, Progress
from twofold.runtime.train.data import Batches, held_out_windows
from twofold.runtime.train.memory import peak_memory_bytes, reset_peak_memory
from twofold.runtime.train.metrics import MetricsFile, Row
from twofold.runtime.train.network import load_skew
from twofold.runtime.train.optimizers import learning_rate_fraction
from twofold.runtime.train.parallel import count_parameters
from twofold.runtime.train.stepper import Stepper, Wish, pick_device
from twofold.runtime.train.stop import stop_requested
from twofold.runtime.train.world import joined
from twofold.workload import Corpus
from twofold.workload.text import Part


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """What a run is asked for beside the plan."""

    evaluate: tuple[Part, ...]
    evaluation_tokens: int
    checkpoint_every_s: Interval | None
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
    with joined(document.plan, pick_device(document)) as world:
        _train(Stepper(document, world), corpus, folder, options, started_at)


def _train(
    stepper: Stepper, corpus: Corpus, folder: Path, options: RunOptions, started_at: float
) -> None:
    world = stepper.world
    stepper.warm_up()
    with (
        closing(stepper),
        Checkpoints(folder / "checkpoints", stepper.held(), world) as checkpoints,
    ):
        _train_on(stepper, checkpoints, corpus, folder, options, started_at)


def _train_on(
    stepper: Stepper,
    checkpoints: Checkpoints,
    corpus: Corpus,
    folder: Path,
    options: RunOptions,
    started_at: float,
) -> None:
    """From the newest checkpoint to the end, and the evaluation of what came out."""
    document, world = stepper.document, stepper.world
    progress = checkpoints.load_newest()
    first_step = progress.step
    if document.plan.rebalance_steps and len(progress.shares) == len(stepper.shares):
        stepper.shares = progress.shares
    num_steps = min(document.workload.num_steps, options.max_steps or document.workload.num_steps)
    startup_s = time.time() - started_at
    cadence = Cadence(
        options.checkpoint_every_s,
        failures_per_s=failures_of_plan_per_s(document.plan, document.fleet),
        restart_s=startup_s,
    )
    start = {
        "event": "start",
        "step": first_step,
        "num_steps": num_steps,
        "tokens_per_step": document.workload.tokens_per_step,
        "startup_s": startup_s,
        "num_parameters": count_parameters(document, stepper.network),
        "device": str(stepper.device),
        "ranks": world.size,
        "ended_at": time.time(),
    }
    path = folder / "metrics.jsonl" if world.rank == 0 else None
    own_path = None if world.is_alone else folder / "ranks" / f"rank-{world.rank:05d}.jsonl"
    with (
        MetricsFile(path, keep_steps=first_step) as metrics,
        MetricsFile(own_path, keep_steps=first_step) as own,
    ):
        metrics.write(start)
        steps = range(first_step, num_steps)
        end = _train_steps(
            stepper, corpus, checkpoints, metrics, own, steps, progress.clock_s, cadence
        )
        for part in options.evaluate:
            metrics.write(_evaluation(stepper, corpus, part, options.evaluation_tokens))
        checkpoints.finish()
        metrics.write({"event": "end", "startup_s": startup_s, **end})


def _train_steps(
    stepper: Stepper,
    corpus: Corpus,
    checkpoints: Checkpoints,
    metrics: MetricsFile,
    own: MetricsFile,
    steps: range,
    clock_s: float,
    cadence: Cadence,
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

    def wish() -> Wish:
        due = cadence.is_due(clock.elapsed_s() - saved_at_s)
        save = (due and stepper.world.rank == 0) or checkpoints.has_failed
        return Wish(stop=stop_requested(), save=save)

    def progress() -> Progress:
        return Progress(
            step=done,
            clock_s=clock.elapsed_s(),
            next_sample=done * recipe.global_batch,
            shares=stepper.shares,
        )

    for step in steps:
        began_s = clock.elapsed_s()
        fraction = learning_rate_fraction(recipe, step, workload.num_steps)
        stepper.set_rates(fraction)
        rows = batches.batch(*stepper.my_samples(step))
        data_s = clock.elapsed_s() - began_s
        result = stepper.step(rows, wish=wish)
        done = step + 1
        now_s = clock.elapsed_s()
        times_s.append(now_s - began_s)
        skew = load_skew(stepper.network)
        metrics.write(
            {
                "event": "step",
                "step": done,
                "tokens": done * workload.tokens_per_step,
                "time_s": now_s,
                "step_time_s": times_s[-1],
                "data_s": data_s,
                "ended_at": time.time(),
                "loss": result.loss,
                "gradient_norm": result.gradient_norm,
                "learning_rate_fraction": fraction,
            }
            | ({} if skew is None else {"expert_load_skew": skew})
        )
        own.write({"step": done, **asdict(result.spent)})
        for event in result.events:
            metrics.write({**event, "step": done})
        if result.diverged:
            metrics.write({"event": "diverged", "step": done})
            break
        if result.save or result.stop:
            stalled_at = time.time()
            with clock.paused():
                checkpoints.save(progress())
                if result.stop:
                    checkpoints.finish()
            ended_at = time.time()
            stall_s = ended_at - stalled_at
            metrics.write(
                {"event": "checkpoint", "step": done, "stall_s": stall_s, "ended_at": ended_at}
            )
            saved_at_s = clock.elapsed_s()
            cadence.saved(stall_s=stall_s, write_s=checkpoints.write_s)
            if result.stop:
                raise InterruptedRunError(f"step {done} of {steps.stop}")
    train_s = clock.elapsed_s()
    metrics.write({"event": "trained", "step": done, "train_s": train_s})
    if cadence.every is not None and done == steps.stop:
        checkpoints.save(progress())
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


def _check_vocabulary(corpus: Corpus, document: PlanDocument) -> None:
    if corpus.vocab > document.model.vocab:
        raise InputError(
            f"the text has token {corpus.vocab - 1}, the model a vocabulary of "
            f"{document.model.vocab}",
            at=f"model '{document.model.name}', vocab",
            help=f"use a vocabulary of at least {corpus.vocab}",
        )
