"""`--retune`: learning rate and batch of every arm to an interior optimum, then its lengths.

Trials of an arm cost equal machine time: a batch that runs slower sees fewer tokens. From a
start the search doubles and halves each of the two until every neighbour of the best is worse.
Only the tune part of the text is looked at, with seeds that no proof uses.
"""

from __future__ import annotations

import math
import shutil
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from twofold import __version__
from twofold.document import make_document
from twofold.engines.embedded import check_finished, embedded_job, read_run
from twofold.engines.run import Run
from twofold.errors import InputError, NegativeAnswer
from twofold.fleet import Fleet
from twofold.launch import run_job
from twofold.measure.contestants import at_rate
from twofold.measure.experiment import ArmSpec, Candidate, Experiment, TuningSpec
from twofold.measure.finals import Finalist, choose_plan, default_plan, time_finalists
from twofold.measure.progress import Progress
from twofold.measure.tuned import LengthTrial, Search, Trial, Tuned, TunedArm
from twofold.model import Model
from twofold.plan import Plan
from twofold.workload import Corpus, Recipe, Train

_MOST_TRIALS = 40
_LADDER = (0.125, 0.177, 0.25, 0.354, 0.5, 0.707, 1.0)
_LENGTHEN = 1.12
_MOST_LENGTHENINGS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What every trial shares: data, machine, a scratch folder and someone watching."""

    experiment: Experiment
    corpus: Corpus
    fleet: Fleet
    folder: Path
    progress: Progress

    @property
    def tuning(self) -> TuningSpec:
        assert self.experiment.tuning is not None
        return self.experiment.tuning

    @property
    def seq_len(self) -> int:
        assert self.experiment.workload is not None
        return self.experiment.workload.seq_len

    def workload(self, recipe: Recipe, tokens: int) -> Train:
        assert self.experiment.workload is not None
        return Train(
            text=self.experiment.workload.text,
            tokens=max(tokens, recipe.global_batch * self.seq_len),
            seq_len=self.seq_len,
            recipe=recipe,
            text_hash=self.corpus.text_hash,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Winner:
    """The best recipe of one candidate with the levers it ran under."""

    candidate: Candidate
    model: Model
    recipe: Recipe
    plan: Plan
    search: Search
    tokens_per_s: float


def retune(
    experiment: Experiment, corpus: Corpus, fleet: Fleet, folder: Path, progress: Progress
) -> Tuned:
    """Tune every arm that has candidates; the baseline first, since it fixes the target."""
    if experiment.tuning is None:
        raise InputError(
            "the experiment does not say how to tune",
            at="experiment, tuning",
            help="add [tuning] with baseline and baseline_s",
        )
    started = time.perf_counter()
    bench = Bench(
        experiment=experiment, corpus=corpus, fleet=fleet, folder=folder, progress=progress
    )
    tuning = experiment.tuning
    names = [name for name, arm in experiment.arms.items() if arm.candidates]
    names.sort(key=lambda name: name != tuning.baseline)
    arms: dict[str, TunedArm] = {}
    target_loss = baseline_loss = math.nan
    for name in names:
        searches = [
            _search(bench, name, experiment.arms[name], candidate)
            for candidate in experiment.arms[name].candidates
        ]
        winner = min(searches, key=lambda found: found.search.score)
        if name == tuning.baseline:
            tokens = round(tuning.baseline_s * winner.tokens_per_s)
            lengths = _lengths(bench, winner, tokens)
            trials = _run_lengths(bench, winner, lengths, tuning.seeds)
            baseline_loss = _mean_loss(trials, lengths[-1])
            target_loss = _loss_at(trials, lengths, tuning.target_fraction * lengths[-1])
        else:
            tokens, trials = _shortest_length(bench, winner, baseline_loss - tuning.safety)
            lengths = _lengths(bench, winner, tokens)
        arms[name] = TunedArm(
            model=winner.candidate.model,
            recipe=winner.candidate.recipe,
            learning_rate=winner.recipe.learning_rate,
            global_batch=winner.recipe.global_batch,
            lengths_tokens=lengths,
            searches=tuple(found.search for found in searches),
            length_trials=tuple(trials),
        )
        progress.note(
            f"{name}: {winner.candidate.model} with {winner.candidate.recipe}, "
            f"rate {winner.recipe.learning_rate:g}, batch {winner.recipe.global_batch}, "
            f"{lengths[-1]} tokens"
        )
    return Tuned(
        experiment=experiment.name,
        twofold_version=__version__,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        machine=fleet.pools[0].node.accelerator.name,
        text_hash=corpus.text_hash,
        seeds=tuning.seeds,
        target_loss=target_loss,
        baseline_loss=baseline_loss,
        num_runs=sum(
            len(arm.length_trials) + sum(len(found.trials) for found in arm.searches)
            for arm in arms.values()
        ),
        wall_s=time.perf_counter() - started,
        arms=arms,
    )


def _search(bench: Bench, name: str, arm: ArmSpec, candidate: Candidate) -> Winner:
    """Pattern search from the recipe as written, doubling and halving rate and batch."""
    model = bench.experiment.models[candidate.model]
    start = bench.experiment.recipes[candidate.recipe]
    trial_s = arm.tuning_s or bench.tuning.baseline_s
    plan = _levers(bench, name, arm, model, start)
    step_times_s: dict[int, float] = {}
    tried: dict[tuple[float, int], Trial] = {}
    best = (start.learning_rate, start.global_batch)
    wanted = [best, *_neighbours(best)]
    while wanted:
        _time_batches(bench, model, start, plan, {b for _, b in wanted}, step_times_s)
        trials = _run_trials(bench, model, start, plan, wanted, step_times_s, trial_s)
        tried.update(zip(wanted, trials, strict=True))
        scored = {key: t.score for key, t in tried.items() if t.score is not None}
        if not scored:
            raise NegativeAnswer(
                f"every trial of '{name}' diverged", help="start from a lower learning rate"
            )
        best = min(scored, key=lambda key: scored[key])
        wanted = [key for key in _neighbours(best) if key not in tried]
        bench.progress.note(
            f"  {name} ({candidate.model}, {candidate.recipe}): best so far rate {best[0]:g}, "
            f"batch {best[1]}, loss {scored[best]:.4f} of {len(tried)} trials"
        )
        if len(tried) > _MOST_TRIALS:
            raise NegativeAnswer(
                f"'{name}' has no interior optimum within {_MOST_TRIALS} trials",
                help="start nearer to it, in the experiment file",
            )
    rate, batch = best
    return Winner(
        candidate=candidate,
        model=model,
        recipe=at_rate(start, rate, batch),
        plan=replace(plan, micro_batch=min(plan.micro_batch, batch)),
        search=Search(
            model=candidate.model,
            recipe=candidate.recipe,
            trial_s=trial_s,
            trials=tuple(tried.values()),
            learning_rate=rate,
            global_batch=batch,
            score=scored[best],
        ),
        tokens_per_s=batch * bench.seq_len / step_times_s[batch],
    )


def _neighbours(key: tuple[float, int]) -> list[tuple[float, int]]:
    rate, batch = key
    around = [(rate / 2, batch), (rate * 2, batch), (rate, batch * 2)]
    return [*around, (rate, batch // 2)] if batch > 1 else around


def _levers(bench: Bench, name: str, arm: ArmSpec, model: Model, recipe: Recipe) -> Plan:
    """The plan that trials run under: chosen once a candidate, at its starting batch."""
    steps = 200
    workload = bench.workload(recipe, steps * recipe.global_batch * bench.seq_len)
    plan, _ = choose_plan(
        model=model,
        workload=workload,
        fleet=bench.fleet,
        maths=arm.maths,
        folder=bench.folder / f"levers-{name}",
        progress=bench.progress,
    )
    return plan


def _with_batch(bench: Bench, plan: Plan, recipe: Recipe) -> Plan:
    whole = default_plan(bench.workload(recipe, 1), bench.fleet).micro_batch
    return replace(plan, micro_batch=whole)


def _time_batches(
    bench: Bench,
    model: Model,
    start: Recipe,
    plan: Plan,
    batches: set[int],
    step_times_s: dict[int, float],
) -> None:
    """Fill in the step time of batches not timed yet."""
    for batch in sorted(batches - set(step_times_s)):
        recipe = replace(start, global_batch=batch)
        timed = time_finalists(
            model=model,
            workload=bench.workload(recipe, batch * bench.seq_len * 1000),
            fleet=bench.fleet,
            finalists=[Finalist(plan=_with_batch(bench, plan, recipe), estimate=None)],
            folder=bench.folder / "batches",
            progress=bench.progress,
        )
        assert timed[0].step_time_s is not None
        step_times_s[batch] = timed[0].step_time_s


def _run_trials(
    bench: Bench,
    model: Model,
    start: Recipe,
    plan: Plan,
    keys: Sequence[tuple[float, int]],
    step_times_s: dict[int, float],
    trial_s: float,
) -> list[Trial]:
    recipes = [at_rate(start, rate, batch) for rate, batch in keys]
    tokens = [
        max(1, round(trial_s / step_times_s[batch])) * batch * bench.seq_len for _, batch in keys
    ]
    runs = _run_all(
        bench, model, plan, list(zip(recipes, tokens, strict=True)), bench.tuning.seeds[0]
    )
    return [
        Trial(
            learning_rate=recipe.learning_rate,
            global_batch=recipe.global_batch,
            tokens=run.tokens,
            train_s=run.train_s,
            tune_loss=run.tune_loss,
            score=None if run.diverged else run.tune_loss,
        )
        for recipe, run in zip(recipes, runs, strict=True)
    ]


def _run_all(
    bench: Bench, model: Model, plan: Plan, wanted: list[tuple[Recipe, int]], seed: int
) -> list[Run]:
    """Run recipes for their tokens in one process, evaluated on the tune part only."""
    folders = [bench.folder / f"trial-{index:02d}" for index in range(len(wanted))]
    documents = []
    for (recipe, tokens), place in zip(wanted, folders, strict=True):
        shutil.rmtree(place, ignore_errors=True)
        documents.append(
            make_document(
                model=model,
                workload=bench.workload(recipe, tokens),
                fleet=bench.fleet,
                plan=_with_batch(bench, plan, recipe),
                estimate=None,
                seed=seed,
                twofold_version=__version__,
            )
        )
    job = embedded_job(
        documents,
        folders,
        evaluate=["tune"],
        evaluation_tokens=bench.experiment.quality.evaluation_tokens,
    )
    done = 0

    def on_row(row: dict[str, Any]) -> None:
        nonlocal done
        bench.progress.detail(row)
        if row.get("event") == "end":
            done += 1
            bench.progress.advance("tuning trials", done, len(wanted))

    check_finished(job, run_job(job, on_row))
    return [read_run(place) for place in folders]


def _lengths(bench: Bench, winner: Winner, tokens: int) -> tuple[int, ...]:
    """Whole steps, rising, the last one the fixed length."""
    step = winner.recipe.global_batch * bench.seq_len
    return tuple(
        max(1, round(fraction * tokens / step)) * step for fraction in bench.tuning.length_fractions
    )


def _run_lengths(
    bench: Bench, winner: Winner, lengths: Sequence[int], seeds: Sequence[int]
) -> list[LengthTrial]:
    trials = []
    for seed in seeds:
        wanted = [(winner.recipe, tokens) for tokens in lengths]
        for run in _run_all(bench, winner.model, winner.plan, wanted, seed):
            loss = None if run.diverged else run.tune_loss
            trials.append(LengthTrial(seed=seed, tokens=run.tokens, tune_loss=loss))
    return trials


def _shortest_length(
    bench: Bench, winner: Winner, wanted_loss: float
) -> tuple[int, list[LengthTrial]]:
    """The fewest tokens that reach the loss on every tuning seed's mean, schedule complete."""
    longest = bench.tuning.baseline_s * winner.tokens_per_s
    step = winner.recipe.global_batch * bench.seq_len
    ladder = [max(1, round(fraction * longest / step)) * step for fraction in _LADDER]
    trials: list[LengthTrial] = []
    tokens = ladder[-1]
    for rung in ladder:
        trials += _run_lengths(bench, winner, [rung], bench.tuning.seeds[:1])
        loss = trials[-1].tune_loss
        if loss is not None and loss <= wanted_loss:
            tokens = _between(trials, wanted_loss, step)
            break
    for _ in range(_MOST_LENGTHENINGS):
        attempt = _run_lengths(bench, winner, [tokens], bench.tuning.seeds)
        trials += attempt
        if _mean_loss(attempt, tokens) <= wanted_loss:
            return tokens, trials
        tokens = math.ceil(tokens * _LENGTHEN / step) * step
    return tokens, trials


def _between(trials: Sequence[LengthTrial], wanted_loss: float, step: int) -> int:
    """Tokens at the wanted loss between the last two rungs, linear in log tokens."""
    last = trials[-1]
    if len(trials) < 2:
        return last.tokens
    before = trials[-2]
    if before.tune_loss is None or last.tune_loss is None:
        return last.tokens
    share = (before.tune_loss - wanted_loss) / (before.tune_loss - last.tune_loss)
    tokens = before.tokens * (last.tokens / before.tokens) ** share
    return math.ceil(tokens / step) * step


def _mean_loss(trials: Sequence[LengthTrial], tokens: int) -> float:
    losses = [
        math.inf if trial.tune_loss is None else trial.tune_loss
        for trial in trials
        if trial.tokens == tokens
    ]
    return statistics.fmean(losses)


def _loss_at(trials: Sequence[LengthTrial], lengths: Sequence[int], tokens: float) -> float:
    """Mean loss at the length nearest to `tokens`."""
    nearest = min(lengths, key=lambda length: abs(length - tokens))
    return _mean_loss(trials, nearest)
