"""The stage of a proof of serving: who is there, and one stretch of requests to one of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import aiohttp

from twofold.evidence.serving.answers import Stretch, StretchKind
from twofold.host import EnergySource
from twofold.measure.ledger import Ledger
from twofold.measure.load.client import Server
from twofold.measure.load.drive import requests_for
from twofold.measure.load.prompts import prompts_of
from twofold.measure.load.watched import drive_watched
from twofold.measure.progress import Progress
from twofold.measure.serving.answers import Tokens
from twofold.measure.serving.experiment import ServingExperiment
from twofold.serving_plan import ServingPlan
from twofold.workload.serve import Serve


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """An arm and where it is. `plan` and `document` are None for a URL that was given."""

    name: str
    title: str
    server: Server
    plan: ServingPlan | None = None
    document: dict[str, Any] | None = None
    url: str | None = None
    levers: tuple[str, ...] | None = None
    every_block: bool = True


@dataclass(slots=True, kw_only=True)
class Stage:
    """`text` are held-out tokens that prompts are cut from, None where the vocabulary is not
    known."""

    http: aiohttp.ClientSession
    experiment: ServingExperiment
    energy: EnergySource
    ledger: Ledger
    progress: Progress
    text: Tokens | None
    stretches: list[Stretch] = field(default_factory=list)

    async def run(
        self,
        contestant: Contestant,
        workload: Serve,
        *,
        kind: StretchKind,
        block: int,
        seed: int,
        turn: int,
        least_s: float = 0.0,
    ) -> Stretch:
        """Arms that are given the same `seed` and `turn` get the same requests."""
        requests = requests_for(workload, seed, least_s)
        prompts = prompts_of(requests, contestant.server, seed, self.text, turn)
        _, stretch = await drive_watched(
            self.http,
            contestant.server,
            workload,
            requests,
            prompts,
            arm=contestant.name,
            kind=kind,
            seed=seed,
            block=block,
            position=len(self.stretches),
            least_s=least_s,
            counter=self.energy.counter,
        )
        self.stretches.append(stretch)
        return stretch

    async def at_rate(
        self,
        contestant: Contestant,
        rate_per_s: float,
        *,
        kind: StretchKind = "rate",
        block: int,
        seed: int,
        turn: int,
    ) -> Stretch:
        load = self.experiment.workload
        return await self.run(
            contestant,
            load.at_rate(rate_per_s, self.experiment.name),
            kind=kind,
            block=block,
            seed=seed,
            turn=turn,
            least_s=load.seconds,
        )
