"""From an experiment to its contestants: every arm with model, recipe, plan and prediction."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from twofold import __version__
from twofold.catalog import read_fleet
from twofold.document import PlanDocument, as_json, from_mapping, make_document, part_hash
from twofold.engines import Command
from twofold.errors import InputError
from twofold.evidence.records import Arm, Prediction
from twofold.fleet import Fleet
from twofold.measure.experiment import ArmSpec, Experiment, Placing
from twofold.measure.finals import choose_plan
from twofold.measure.progress import Progress
from twofold.measure.tuned import Tuned, TunedArm
from twofold.model import (
    inference_flop_per_token,
    num_parameters,
)
from twofold.perf.learning import tokens_ratio_to_loss
from twofold.perf.speeds import fitted_efficiencies
from twofold.perf.train import estimate
from twofold.search.placement.answer import PlacementAnswer, place
from twofold.search.placement.found import Placement
from twofold.search.placement.question import is_calibrated, make_question
from twofold.workload import Corpus, Recipe, Train

QUICK_FRACTION = 0.125


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """An arm ready to run: a resolved document, or a command."""

    arm: Arm
    document: PlanDocument | None
    command: Command | None
    finals: list[dict[str, Any]]

    def document_at(self, length: int, seed: int) -> PlanDocument:
        """The plan document of one run: the arm's, at one length and seed."""
        assert self.document is not None
        document = self.document
        return make_document(
            model=document.model,
            workload=replace(document.workload, tokens=self.arm.lengths_tokens[length]),
            fleet=document.fleet,
            plan=document.plan,
            estimate=document.estimate,
            seed=seed,
            twofold_version=document.twofold_version,
        )


def command_contestant(name: str, spec: ArmSpec) -> Contestant:
    """A user's command. What it computes is known to the user alone: no hash, no prediction."""
    assert spec.command is not None
    return Contestant(
        arm=Arm(
            name=name,
            title=spec.title or spec.command.argv,
            maths=name,
            recipe="stated by the user",
            lengths_tokens=(0,),
            fixed_length=0,
            num_parameters=None,
            inference_flop_per_token=None,
            model_hash=None,
            workload_hash=None,
            plan=None,
            command=spec.command.argv,
            prediction=None,
        ),
        document=None,
        command=spec.command,
        finals=[],
    )


def placed_contestant(
    name: str, experiment: Experiment, *, corpus: Corpus, progress: Progress, quick: bool
) -> Contestant:
    """An arm on unlike pools: its recipe as it stands, the plan that its placement asks for."""
    spec = experiment.arms[name]
    assert experiment.workload is not None
    assert experiment.workload.tokens is not None
    assert experiment.fleet is not None
    assert spec.placement is not None
    candidate = spec.candidates[0]
    model, recipe = experiment.models[candidate.model], experiment.recipes[candidate.recipe]
    tokens = experiment.workload.tokens
    if quick:
        step = recipe.global_batch * experiment.workload.seq_len
        tokens = max(4, round(QUICK_FRACTION * tokens / step)) * step
    workload = _workload(experiment, corpus, recipe, tokens)
    progress.note(f"placing '{name}'")
    fleet = _fleet_here(experiment.fleet)
    month = f"{datetime.now(UTC):%Y-%m}"
    found = place(make_question(model, workload, fleet, fitted_efficiencies(), month))
    chosen = _placements(found)[spec.placement]
    if chosen is None:
        raise InputError(
            f"there is no plan of {spec.placement} that fits",
            at=f"experiment, arms.{name}.placement",
            help="look at what fits: twofold plan MODEL --fleet FLEET",
        )
    document = make_document(
        model=model,
        workload=workload,
        fleet=fleet,
        plan=chosen.plan,
        estimate=chosen.estimate,
        seed=0,
        twofold_version=__version__,
    )
    return Contestant(
        arm=Arm(
            name=name,
            title=spec.title,
            maths=spec.placement,
            recipe=candidate.recipe,
            lengths_tokens=(tokens,),
            fixed_length=0,
            num_parameters=num_parameters(model),
            inference_flop_per_token=inference_flop_per_token(model, workload.seq_len),
            model_hash=part_hash(model),
            workload_hash=part_hash(workload),
            plan=as_json(document),
            command=None,
            prediction=_prediction_of(document, None),
        ),
        document=document,
        command=None,
        finals=[],
    )


def _fleet_here(path: str) -> Fleet:
    """InputError where the pools are not processes of this machine, which is what is measured."""
    fleet = read_fleet([path])
    if not all(is_calibrated(pool) for pool in fleet.pools):
        raise InputError(
            f"a proof runs on this machine, and '{path}' has machines of the catalog",
            at="experiment, fleet",
            help='name a fleet file whose pools are all machine = "local"',
        )
    return fleet


def _placements(found: PlacementAnswer) -> dict[Placing, Placement | None]:
    return {"planned": found.best[0], "even shares": found.even, "best subset": found.subset}


def embedded_contestant(
    name: str,
    experiment: Experiment,
    *,
    tuned: Tuned,
    corpus: Corpus,
    fleet: Fleet,
    folder: Path,
    progress: Progress,
    quick: bool,
) -> Contestant:
    """Resolve an arm for the embedded runtime: tuned recipe, plan by its maths, prediction."""
    spec = experiment.arms[name]
    source = experiment.source_arm(name)
    chosen = _tuned_arm(tuned, source, experiment)
    model = experiment.models[chosen.model]
    recipe = tuned_recipe(experiment, chosen)
    lengths = _lengths(experiment, chosen, fixed_only=spec.fixed_only or quick, quick=quick)
    workload = _workload(experiment, corpus, recipe, lengths[-1])
    progress.note(f"planning '{name}'")
    plan, finals = choose_plan(
        model=model,
        workload=workload,
        fleet=fleet,
        maths=spec.maths,
        folder=folder / "finals" / name,
        progress=progress,
    )
    guess = None if model.entry is not None else estimate(model, workload, fleet, plan)
    document = make_document(
        model=model,
        workload=workload,
        fleet=fleet,
        plan=plan,
        estimate=guess,
        seed=0,
        twofold_version=__version__,
    )
    known = model.entry is None
    return Contestant(
        arm=Arm(
            name=name,
            title=spec.title,
            maths=spec.maths,
            recipe=source,
            lengths_tokens=lengths,
            fixed_length=len(lengths) - 1,
            num_parameters=num_parameters(model) if known else None,
            inference_flop_per_token=(
                inference_flop_per_token(model, workload.seq_len) if known else None
            ),
            model_hash=part_hash(model),
            workload_hash=part_hash(workload),
            plan=as_json(document),
            command=None,
            prediction=_prediction(experiment, tuned, document),
        ),
        document=document,
        command=None,
        finals=[{"arm": name, **row} for row in finals],
    )


def restored_contestant(arm: Arm, experiment: Experiment) -> Contestant:
    """A contestant of an interrupted proof, exactly as it was written down."""
    document = (
        None
        if arm.plan is None
        else from_mapping(arm.plan, PlanDocument, at=f"proof.json, arm '{arm.name}'")
    )
    return Contestant(
        arm=arm,
        document=document,
        command=experiment.arms[arm.name].command,
        finals=[],
    )


def tuned_recipe(experiment: Experiment, chosen: TunedArm) -> Recipe:
    """The recipe at its tuned rate and batch; AdamW's rate beside Muon keeps its proportion."""
    start = experiment.recipes[chosen.recipe]
    return at_rate(start, chosen.learning_rate, chosen.global_batch)


def at_rate(start: Recipe, learning_rate: float, global_batch: int) -> Recipe:
    beside = start.adam_learning_rate
    if beside is not None:
        beside = beside * learning_rate / start.learning_rate
    return replace(
        start, learning_rate=learning_rate, global_batch=global_batch, adam_learning_rate=beside
    )


def _tuned_arm(tuned: Tuned, source: str, experiment: Experiment) -> TunedArm:
    chosen = tuned.arms.get(source)
    if chosen is None or chosen.recipe not in experiment.recipes:
        raise InputError(
            f"the tuned recipes hold nothing usable for arm '{source}'",
            at=str(experiment.tuned),
            help="tune again with `twofold prove EXPERIMENT --retune`",
        )
    return chosen


def _lengths(
    experiment: Experiment, chosen: TunedArm, *, fixed_only: bool, quick: bool
) -> tuple[int, ...]:
    assert experiment.workload is not None
    lengths = chosen.lengths_tokens[-1:] if fixed_only else chosen.lengths_tokens
    if not quick:
        return lengths
    step = chosen.global_batch * experiment.workload.seq_len
    return tuple(max(4, round(QUICK_FRACTION * tokens / step)) * step for tokens in lengths)


def _workload(experiment: Experiment, corpus: Corpus, recipe: Recipe, tokens: int) -> Train:
    assert experiment.workload is not None
    return Train(
        text=experiment.workload.text,
        tokens=tokens,
        seq_len=experiment.workload.seq_len,
        recipe=recipe,
        text_hash=corpus.text_hash,
    )


def _prediction(experiment: Experiment, tuned: Tuned, document: PlanDocument) -> Prediction | None:
    """From calibration and published learning factors; the baseline's own tokens are given."""
    return _prediction_of(document, _tokens_to_target(experiment, tuned, document))


def _prediction_of(
    document: PlanDocument, tokens: tuple[float, float, float] | None
) -> Prediction | None:
    guess = document.estimate
    if guess is None or guess.outcome.peak_memory_bytes is None:
        return None
    return Prediction(
        step_time_s=guess.outcome.step_time_s,
        step_time_low_s=guess.step_time_low_s,
        step_time_high_s=guess.step_time_high_s,
        step_parts_s=guess.outcome.step_parts_s,
        peak_memory_bytes=guess.outcome.peak_memory_bytes,
        memory_parts_bytes=guess.outcome.memory_parts_bytes,
        tokens_to_target=tokens[0] if tokens else None,
        tokens_to_target_low=tokens[1] if tokens else None,
        tokens_to_target_high=tokens[2] if tokens else None,
        basis=guess.basis,
    )


def _tokens_to_target(
    experiment: Experiment, tuned: Tuned, document: PlanDocument
) -> tuple[float, float, float] | None:
    """(tokens, low, high): the baseline's length over the published factor of recipe and block."""
    if experiment.tuning is None:
        return None
    base = _tuned_arm(tuned, experiment.tuning.baseline, experiment)
    value, low, high = tokens_ratio_to_loss(
        tuned_recipe(experiment, base),
        experiment.models[base.model],
        document.workload.recipe,
        document.model,
    )
    tokens = base.lengths_tokens[-1]
    return tokens / value, tokens / high, tokens / low
