"""`--retune`: learning rate and batch of every arm to an interior optimum, then its lengths.

Trials of an arm cost equal machine time: a batch that runs slower sees fewer tokens. From a
start the search doubles and halves each of the two until every neighbour of the best is worse.
Only the tune part of the text is looked at, with seeds that no proof uses.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

from twofold import __version__
from twofold.document import content_hash, from_mapping
from twofold.errors import InputError, NegativeAnswer
from twofold.fleet import Fleet
from twofold.measure.contestants import at_rate
from twofold.measure.experiment import ArmSpec, Candidate, Experiment
from twofold.measure.finals import Finalist, choose_plan, time_finalists
from twofold.measure.lengths import lengths_of, loss_at, mean_loss, run_lengths, shortest_length
from twofold.measure.progress import Progress
from twofold.measure.trials import Bench, Memory, Winner, run_trials, with_batch
from twofold.measure.tuned import Search, Trial, Tuned, TunedArm
from twofold.model import Model
from twofold.plan import Plan
from twofold.workload import Corpus, Recipe

_MOST_TRIALS = 40


def retune(
    experiment: Experiment, corpus: Corpus, fleet: Fleet, folder: Path, progress: Progress
) -> Tuned:
    """Tune every arm that has candidates; the baseline first, since it fixes the target.

    Interrupted, it goes on from what lies in `folder`, which is removed when all is done.
    """
    if experiment.tuning is None:
        raise InputError(
            "the experiment does not say how to tune",
            at="experiment, tuning",
            help="add [tuning] with baseline and baseline_s",
        )
    started = time.perf_counter()
    bench = Bench(
        experiment=experiment,
        corpus=corpus,
        fleet=fleet,
        folder=folder,
        progress=progress,
        memory=Memory(folder / "memory.json"),
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
            lengths = lengths_of(bench, winner, tokens)
            trials = run_lengths(bench, winner, lengths, tuning.seeds)
            baseline_loss = mean_loss(trials, lengths[-1])
            target_loss = loss_at(trials, lengths, tuning.target_fraction * lengths[-1])
        else:
            own = experiment.arms[name].safety
            safety = tuning.safety if own is None else own
            tokens, trials = shortest_length(bench, winner, baseline_loss - safety)
            lengths = lengths_of(bench, winner, tokens)
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
    shutil.rmtree(folder, ignore_errors=True)
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
        trials = _score(bench, model, start, plan, wanted, step_times_s, trial_s)
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
    key = f"levers of {name}, {content_hash(model)}, {content_hash(recipe)}"
    remembered = bench.memory.get(key)
    if remembered is not None:
        return from_mapping(remembered, Plan, at=key)
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
    bench.memory.put(key, asdict(plan))
    return plan


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
        key = f"step time of {content_hash(model)}, {content_hash(recipe)}, {content_hash(plan)}"
        remembered = bench.memory.get(key)
        if remembered is not None:
            step_times_s[batch] = float(remembered)
            continue
        timed = time_finalists(
            model=model,
            workload=bench.workload(recipe, batch * bench.seq_len * 1000),
            fleet=bench.fleet,
            finalists=[Finalist(plan=with_batch(plan, recipe), estimate=None)],
            folder=bench.folder / "batches",
            progress=bench.progress,
        )
        assert timed[0].step_time_s is not None
        step_times_s[batch] = timed[0].step_time_s
        bench.memory.put(key, timed[0].step_time_s)


def _score(
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
    runs = run_trials(
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
