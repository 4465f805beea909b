"""The proof of serving: targets, predictions and rates first, then blocks, then the verdict.

One server an arm runs all the while. What is settled beforehand is written down and hashed. Then
every arm runs at its rates in every block, the same requests at the same times, in an order that
is turned from block to block; one arm runs twice, for the noise.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from twofold.errors import InputError
from twofold.evidence.serving.derive import derive_serving
from twofold.evidence.serving.files import (
    is_serving,
    read_serving_evidence,
    write_serving_evidence,
)
from twofold.evidence.serving.records import ServingEvidence
from twofold.host import find_energy_source
from twofold.host.description import virtualisation
from twofold.measure.folders import free_folder
from twofold.measure.ledger import Ledger
from twofold.measure.load.client import session
from twofold.measure.progress import Progress
from twofold.measure.serving.blocks import kept_stretches, run_blocks
from twofold.measure.serving.experiment import experiment_of, read_serving_experiment
from twofold.measure.serving.planning import Ground, held_out_text, prepare
from twofold.measure.serving.settling import settle, stand_again
from twofold.measure.serving.stage import Stage
from twofold.measure.serving.threats import serving_threats

SEEDS_FROM = 1000
_DRAFT = "proof.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingProof:
    folder: Path
    evidence: ServingEvidence

    @property
    def path(self) -> Path:
        return self.folder / "evidence.json"


def prove_serving(
    path: Path, *, runs: Path, progress: Progress, seed: int = SEEDS_FROM, quick: bool = False
) -> ServingProof:
    """Run the experiment from start to end."""
    experiment, written = read_serving_experiment(path)
    folder = free_folder(runs, experiment.name)
    progress.note(f"proof folder: {folder}")
    ledger = _ledger(folder, experiment.name)
    ledger.add("proof", f"{folder.name}{' (smoke test)' if quick else ''}", seed=seed)
    started_s = time.perf_counter()
    ground = prepare(experiment, progress)

    async def measured() -> ServingEvidence:
        async with session() as http:
            with ExitStack() as servers:
                stage = _stage(http, ground, ledger, progress)
                draft, contestants = await settle(
                    stage,
                    ground,
                    servers,
                    folder=folder,
                    written=written,
                    seed=seed,
                    quick=quick,
                )
                draft = replace(draft, stretches=list(stage.stretches))
                write_serving_evidence(draft, folder / _DRAFT)
                stretches = await run_blocks(stage, draft, contestants, folder)
                return replace(draft, stretches=stretches)

    return _concluded(asyncio.run(measured()), folder, ledger, started_s)


def is_serving_proof(folder: Path) -> bool:
    """Whether a proof of serving was begun in the folder."""
    return (folder / _DRAFT).is_file() and is_serving(folder / _DRAFT)


def resume_serving(folder: Path, *, progress: Progress) -> ServingProof:
    """Go on with the blocks that are missing, at the rates and with the plans written down."""
    if (folder / "evidence.json").is_file():
        raise InputError(
            "the proof is finished",
            at=str(folder / "evidence.json"),
            help="re-check it with `twofold prove --check`, or begin a new one",
        )
    draft, untouched = read_serving_evidence(folder / _DRAFT)
    if not untouched:
        raise InputError(
            "what was settled has been changed since",
            at=str(folder / _DRAFT),
            help="begin a new proof",
        )
    experiment = experiment_of(draft.experiment, at=str(folder / _DRAFT))
    ledger = _ledger(folder, experiment.name)
    ledger.add("resumed", folder.name)
    started_s = time.perf_counter()
    ground = Ground(experiment=experiment, text=held_out_text(experiment))

    async def measured() -> ServingEvidence:
        async with session() as http:
            with ExitStack() as servers:
                stage = _stage(http, ground, ledger, progress)
                stage.stretches = kept_stretches(folder) or list(draft.stretches)
                contestants = await stand_again(stage, draft, servers, folder)
                stretches = await run_blocks(stage, draft, contestants, folder)
                return replace(draft, stretches=stretches)

    return _concluded(asyncio.run(measured()), folder, ledger, started_s)


def _ledger(folder: Path, name: str) -> Ledger:
    return Ledger(folder.parent / f"{name}.ledger.jsonl")


def _stage(http: Any, ground: Ground, ledger: Ledger, progress: Progress) -> Stage:
    return Stage(
        http=http,
        experiment=ground.experiment,
        energy=find_energy_source("cpu", virtual=virtualisation()["machine"] is not None),
        ledger=ledger,
        progress=progress,
        text=ground.text,
    )


def _concluded(
    evidence: ServingEvidence, folder: Path, ledger: Ledger, started_s: float
) -> ServingProof:
    """The verdict, and the evidence on disk. `wall_s` is that of this call."""
    wall_s = time.perf_counter() - started_s
    evidence = replace(evidence, ledger=ledger.entries(), wall_s=wall_s)
    evidence = replace(evidence, threats=serving_threats(evidence))
    evidence = replace(evidence, derived=derive_serving(evidence))
    write_serving_evidence(evidence, folder / "evidence.json")
    for result in evidence.derived.results if evidence.derived else []:
        ledger.add(
            result.verdict,
            f"{folder.name}: {result.target} target, {result.arm} over {result.baseline}",
        )
    return ServingProof(folder=folder, evidence=evidence)
