"""What is settled before the first judged block: servers, targets, plans, rates, predictions.

One user alone on the first baseline gives the latency targets, a short search each arm's rates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from twofold import __version__
from twofold.document import from_mapping
from twofold.evidence.files import SCHEMA_VERSION
from twofold.evidence.serving.answers import Stretch
from twofold.evidence.serving.derive import points_of, targets_of
from twofold.evidence.serving.files import serving_predictions_hash
from twofold.evidence.serving.goodput import Point
from twofold.evidence.serving.records import (
    NamedTargets,
    ServingArm,
    ServingEvidence,
    Transcript,
)
from twofold.host import describe_host, git_commit
from twofold.measure.load.client import discover
from twofold.measure.load.prompts import WORDS
from twofold.measure.serving.answers import Tokens, held_out_losses, transcripts_of
from twofold.measure.serving.blocks import OFFLINE_REQUESTS
from twofold.measure.serving.expectations import Expecting
from twofold.measure.serving.levers import is_lossy
from twofold.measure.serving.planning import Choice, Ground, choose_plans
from twofold.measure.serving.rates import crossing, rates_about
from twofold.measure.serving.servers import served
from twofold.measure.serving.stage import Contestant, Stage
from twofold.serving_document import ServingDocument
from twofold.serving_plan import ServingPlan

_SMOKE_BLOCKS = 1


async def settle(
    stage: Stage,
    ground: Ground,
    servers: ExitStack,
    *,
    folder: Path,
    written: dict[str, Any],
    seed: int,
    quick: bool,
) -> tuple[ServingEvidence, list[Contestant]]:
    """The evidence without its judged stretches, and the arms with their servers, which end with
    `servers`."""
    experiment = ground.experiment
    urls = _Urls(ground, folder / "servers", servers)
    first = experiment.comparisons[0].baseline
    targets = await _targets(stage, first, await urls.of_stated(stage, first), seed - 1)
    expecting = _expecting(ground, targets)
    choice = choose_plans(ground, expecting)
    contestants = await _meet(stage, ground, choice, urls)
    rates = await _rates(stage, contestants, expecting, targets, seed=seed - 2)
    arms = _arms(contestants, expecting, rates)
    predictions_hash = serving_predictions_hash(arms)
    stage.ledger.add("predicted", f"sha256 {predictions_hash}", seed=seed)
    transcripts, losses = await _answers(stage, contestants, ground.text)
    evidence = ServingEvidence(
        schema_version=SCHEMA_VERSION,
        twofold_version=__version__,
        name=experiment.name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        smoke=quick,
        workload=experiment.workload.at_rate(1.0, experiment.name),
        targets=targets,
        claimed=experiment.targets.claimed,
        comparisons=[(c.arm, c.baseline) for c in experiment.comparisons],
        arms=arms,
        levers=choice.levers,
        stretches=[],
        transcripts=transcripts,
        held_out=losses,
        epsilon=experiment.quality.epsilon,
        margin=experiment.quality.margin,
        predictions_hash=predictions_hash,
        energy_grade=stage.energy.grade if stage.energy.counter else "unknown",
        environment={
            "host": describe_host(),
            "commit": git_commit(Path.cwd()),
            "first_seed": seed,
        },
        experiment=written,
        ledger=[],
        planned_blocks=_SMOKE_BLOCKS if quick else experiment.budget.blocks,
        wall_s=0.0,
    )
    return evidence, contestants


async def stand_again(
    stage: Stage, evidence: ServingEvidence, servers: ExitStack, folder: Path
) -> list[Contestant]:
    """The arms of a proof that was interrupted, with the plans that were settled then."""
    stage.progress.note("starting the servers again")
    documents = {
        arm.name: from_mapping(arm.plan, ServingDocument, at=f"{folder}, {arm.name}")
        for arm in evidence.arms
        if arm.plan is not None
    }
    fresh = {document.plan: name for name, document in reversed(documents.items())}
    apart = folder / f"servers-{len(list(folder.glob('servers*'))) + 1}"
    started = servers.enter_context(served([(n, documents[n]) for n in fresh.values()], apart))
    urls = dict(zip(fresh, started, strict=True))
    contestants = []
    for arm in evidence.arms:
        document = documents.get(arm.name)
        url = arm.url or urls[documents[arm.name].plan]
        contestants.append(
            Contestant(
                name=arm.name,
                title=arm.title,
                server=await discover(stage.http, url, list(WORDS)),
                plan=None if document is None else document.plan,
                document=arm.plan,
                url=arm.url,
                levers=arm.levers,
                every_block=arm.every_block,
            )
        )
    return contestants


class _Urls:
    """Where arms are: a URL that was given, or a server started here, once for equal plans."""

    def __init__(self, ground: Ground, folder: Path, servers: ExitStack) -> None:
        self.ground, self.folder, self.servers = ground, folder, servers
        self.started: dict[ServingPlan, str] = {}

    async def of_stated(self, stage: Stage, name: str) -> str:
        """Of an arm whose plan stands in the file."""
        url = stage.experiment.arms[name].url
        if url is not None:
            return url
        plan = self.ground.on_this_machine(stage.experiment.plan_of(name))
        return self.of_plans({name: plan})[name]

    def of_plans(self, plans: Mapping[str, ServingPlan]) -> dict[str, str]:
        fresh: dict[ServingPlan, str] = {}
        for name, plan in plans.items():
            if plan not in self.started:
                fresh.setdefault(plan, name)
        documents = [(name, self.ground.document(plan)) for plan, name in fresh.items()]
        urls = self.servers.enter_context(served(documents, self.folder))
        self.started |= dict(zip(fresh, urls, strict=True))
        return {name: self.started[plan] for name, plan in plans.items()}


async def _meet(stage: Stage, ground: Ground, choice: Choice, urls: _Urls) -> list[Contestant]:
    """Every arm with its server; arms between others, for the attribution, last."""
    stage.progress.note("starting the servers")
    addresses = urls.of_plans(choice.plans)
    words = list(WORDS)
    contestants = []
    for name, spec in stage.experiment.arms.items():
        plan = choice.plans.get(name)
        url = spec.url or addresses[name]
        contestants.append(
            Contestant(
                name=name,
                title=spec.title or name,
                server=await discover(stage.http, url, words),
                plan=plan,
                document=None if plan is None else asdict(ground.document(plan)),
                url=spec.url,
                levers=choice.levers_of.get(name),
            )
        )
    for name in choice.plans.keys() - stage.experiment.arms.keys():
        plan, levers = choice.plans[name], choice.levers_of[name]
        contestants.append(
            Contestant(
                name=name,
                title=", ".join(levers),
                server=await discover(stage.http, addresses[name], words),
                plan=plan,
                document=asdict(ground.document(plan)),
                levers=levers,
                every_block=False,
            )
        )
    return contestants


async def _targets(stage: Stage, name: str, url: str, seed: int) -> list[NamedTargets]:
    """Of one user alone on the first baseline, before anything else is measured."""
    spec = stage.experiment.targets
    stage.progress.note(f"one user alone on '{name}', for the latency targets")
    workload = stage.experiment.workload.with_users(
        1, stage.experiment.name, spec.unloaded_requests
    )
    alone = Contestant(name=name, title=name, server=await discover(stage.http, url, list(WORDS)))
    stretch = await stage.run(alone, workload, kind="unloaded", block=-1, seed=seed, turn=0)
    return targets_of([stretch], spec.times_unloaded, spec.attainment)


async def _rates(
    stage: Stage,
    contestants: Sequence[Contestant],
    expecting: Expecting | None,
    targets: Sequence[NamedTargets],
    *,
    seed: int,
) -> dict[str, tuple[float, ...]]:
    """A search on requests that are not judged, from the predicted goodput or from one request
    at a time."""
    claimed = next(t for t in targets if t.name == stage.experiment.targets.claimed)
    unloaded_s = _unloaded_e2e_s(stage.stretches)
    found = {}
    for contestant in contestants:
        start = None
        if contestant.plan is not None and expecting is not None:
            start = expecting.goodputs(contestant.plan, [claimed.name])[claimed.name]
        turns = iter(range(1000))

        async def attains(rate: float, contestant: Contestant = contestant) -> Point:
            stretch = await stage.at_rate(
                contestant,
                rate,
                block=-1,
                seed=seed,
                turn=next(turns),  # noqa: B023
            )
            (point,) = points_of([stretch], claimed.targets)
            stage.progress.note(f"  {rate:.3g} requests/s: {point.attained:.0%} within the target")
            return point

        stage.progress.note(f"'{contestant.name}': at which rates?")
        rate = await crossing(start or 0.5 / unloaded_s, claimed.targets.attainment, attains)
        found[contestant.name] = rates_about(rate, stage.experiment.budget.rates)
    return found


def _unloaded_e2e_s(stretches: Sequence[Stretch]) -> float:
    answers = [a for s in stretches if s.kind == "unloaded" for a in s.judged if a.whole]
    return sum(a.e2e_s for a in answers) / len(answers)


def _expecting(ground: Ground, targets: Sequence[NamedTargets]) -> Expecting | None:
    experiment = ground.experiment
    if ground.fleet is None or experiment.model is None:
        return None
    return Expecting(
        model=experiment.model,
        fleet=ground.fleet,
        load=experiment.workload,
        targets=tuple(targets),
        num_offline=OFFLINE_REQUESTS,
    )


def _arms(
    contestants: Sequence[Contestant],
    expecting: Expecting | None,
    rates: dict[str, tuple[float, ...]],
) -> list[ServingArm]:
    return [
        ServingArm(
            name=c.name,
            title=c.title,
            url=c.url,
            plan=c.document,
            lossy=c.plan is not None and is_lossy(c.plan),
            rates_per_s=rates[c.name],
            every_block=c.every_block,
            levers=c.levers,
            prediction=None
            if c.plan is None or expecting is None
            else expecting.prediction(c.plan, rates[c.name]),
        )
        for c in contestants
    ]


async def _answers(
    stage: Stage, contestants: Sequence[Contestant], text: Tokens | None
) -> tuple[list[Transcript], dict[str, list[float]]]:
    stage.progress.note("greedy answers and held-out loss, for equal quality")
    transcripts: list[Transcript] = []
    losses = {}
    for contestant in contestants:
        told, lack = await transcripts_of(
            stage.http, contestant.server, contestant.name, stage.experiment.quality, text
        )
        transcripts += told
        if lack is not None:
            stage.ledger.add("lacks", lack, arm=contestant.name)
            stage.progress.note(lack)
        if text is not None and contestant.document is not None:
            losses[contestant.name] = await held_out_losses(
                stage.http, contestant.server, stage.experiment.quality, text
            )
    return transcripts, losses
