"""The plans of a proof: those that the file states, those that are tuned, and the one found.

By predicted goodput at the claimed target, over the same step curves: threads and precision of
the tuned baseline and of the planned arm are chosen alike, then the limits of the planned one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

from twofold import __version__
from twofold.fleet import Fleet
from twofold.measure.progress import Progress
from twofold.measure.serving.answers import Tokens
from twofold.measure.serving.expectations import Expecting
from twofold.measure.serving.experiment import ServingExperiment
from twofold.measure.serving.levers import measured_states, plans_between
from twofold.measure.serving.weights import trained_weights
from twofold.measure.serving_curves import local_serving_fleet
from twofold.serving_document import ServingDocument, make_serving_document
from twofold.serving_plan import ServingPlan
from twofold.workload import prepare_corpus

_SEQUENCES = (8, 16, 32, 64, 128)
_STEP_TOKENS = (64, 128, 256, 512, 2048)
_SEED = 0
_MEMORY_FRACTION = 0.3
"""Of the memory in use for weights and caches, over all servers of a proof."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What all arms that are served here share; empty where every arm is a URL."""

    experiment: ServingExperiment
    fleet: Fleet | None = None
    weights: str | None = None
    text: Tokens | None = None

    def on_this_machine(self, plan: ServingPlan) -> ServingPlan:
        """Servers that stand side by side share the machine's memory."""
        assert self.fleet is not None
        share = _MEMORY_FRACTION / self.experiment.num_served_here
        return replace(plan, pool=self.fleet.pools[0].name, memory_fraction=share)

    def document(self, plan: ServingPlan) -> ServingDocument:
        experiment, fleet = self.experiment, self.fleet
        assert experiment.model is not None
        assert fleet is not None
        return make_serving_document(
            model=experiment.model,
            workload=experiment.workload.at_rate(1.0, experiment.name),
            fleet=fleet,
            plan=plan,
            estimate=None,
            seed=_SEED,
            twofold_version=__version__,
            weights=self.weights,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The plans of all arms served here, those between two arms for the attribution included.
    `levers_of` says which of `levers` an arm has."""

    plans: dict[str, ServingPlan]
    levers: tuple[str, ...] = ()
    levers_of: Mapping[str, tuple[str, ...]]


def prepare(experiment: ServingExperiment, progress: Progress) -> Ground:
    """Step curves of this machine, weights, and held-out text."""
    if experiment.model is None or all(a.url is not None for a in experiment.arms.values()):
        return Ground(experiment=experiment)
    fleet = local_serving_fleet(
        experiment.model,
        threads=candidate_threads(experiment),
        precisions=experiment.tuning.precisions,
        progress=progress,
    )
    if experiment.training is None:
        return Ground(experiment=experiment, fleet=fleet, weights=experiment.weights or "random")
    corpus = prepare_corpus(experiment.training.text)
    folder = trained_weights(experiment.model, experiment.training, corpus, fleet, progress)
    return Ground(
        experiment=experiment,
        fleet=fleet,
        weights=str(folder),
        text=held_out_text(experiment),
    )


def held_out_text(experiment: ServingExperiment) -> Tokens | None:
    """What prompts are cut from where the served model was trained here."""
    if experiment.training is None:
        return None
    return prepare_corpus(experiment.training.text).tokens("test")


def candidate_threads(experiment: ServingExperiment) -> tuple[int, ...]:
    """Those that the file names; else one, and all cores."""
    return experiment.tuning.threads or tuple(sorted({1, os.cpu_count() or 1}))


def choose_plans(ground: Ground, expecting: Expecting | None) -> Choice:
    """Every arm's plan, now that the targets are known."""
    experiment = ground.experiment
    plans: dict[str, ServingPlan] = {}
    for name, spec in experiment.arms.items():
        if spec.url is not None:
            continue
        assert expecting is not None
        plan = ServingPlan() if spec.planned else experiment.plan_of(name)
        plan = ground.on_this_machine(plan)
        if spec.planned or spec.tune:
            plan = best_plan(experiment, expecting, _threaded(experiment, plan))
        if spec.planned:
            plan = best_plan(experiment, expecting, [plan, *_limited(plan)])
        plans[name] = plan
    if experiment.attribution is None:
        return Choice(plans=plans, levers_of={})
    return _with_states(plans, *experiment.attribution)


def best_plan(
    experiment: ServingExperiment, expecting: Expecting, space: Sequence[ServingPlan]
) -> ServingPlan:
    """The highest predicted goodput at the claimed target; of equals the first."""
    claimed = experiment.targets.claimed
    best, most = None, -1.0
    for plan in space:
        found = expecting.goodputs(plan, [claimed])[claimed] or 0.0
        if found > most:
            best, most = plan, found
    assert best is not None
    return best


def _threaded(experiment: ServingExperiment, plan: ServingPlan) -> list[ServingPlan]:
    return [
        replace(plan, threads=count, precision=precision)
        for count, precision in product(candidate_threads(experiment), experiment.tuning.precisions)
    ]


def _limited(plan: ServingPlan) -> list[ServingPlan]:
    return [
        replace(plan, max_num_seqs=seqs, max_batched_tokens=tokens)
        for seqs, tokens in product(_SEQUENCES, _STEP_TOKENS)
        if tokens >= seqs
    ]


def _with_states(plans: dict[str, ServingPlan], before: str, after: str) -> Choice:
    """The two arms and every measured state between them, each under a name of its own."""
    between = plans_between(plans[before], plans[after])
    whole = max(between, key=len)
    all_plans = dict(plans)
    levers_of: dict[str, tuple[str, ...]] = {}
    for state in measured_states(between):
        levers = tuple(sorted(state))
        if not state:
            name = before
        elif state == whole:
            name = after
        else:
            name = "with-" + "-and-".join(lever.replace(" ", "-") for lever in levers)
            all_plans[name] = between[state]
        levers_of[name] = levers
    return Choice(plans=all_plans, levers=tuple(sorted(whole)), levers_of=levers_of)
