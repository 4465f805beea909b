"""The judged blocks of a proof of serving, and what is kept of them as they end."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from twofold.document import from_mapping, read_text, write_text
from twofold.errors import InputError
from twofold.evidence.serving.answers import Stretch
from twofold.evidence.serving.records import ServingArm, ServingEvidence
from twofold.measure.blocks import run_order
from twofold.measure.progress import wait_for_quiet
from twofold.measure.serving.stage import Contestant, Stage

OFFLINE_REQUESTS = 48
_QUIET_WAIT_S = 20.0
_KEPT = "stretches.jsonl"


async def run_blocks(
    stage: Stage, evidence: ServingEvidence, contestants: Sequence[Contestant], folder: Path
) -> list[Stretch]:
    """Those that are missing, each kept in the folder as it ends; then all stretches that count."""
    seed = int(evidence.environment["first_seed"])
    done = max((s.block + 1 for s in stage.stretches), default=0)
    for block in range(done, evidence.planned_blocks):
        stage.progress.advance("blocks", block, evidence.planned_blocks)
        await _block(stage, contestants, evidence.arms, block=block, seed=seed + block)
        _keep(folder, stage.stretches)
    stage.progress.advance("blocks", evidence.planned_blocks, evidence.planned_blocks)
    return [s for s in stage.stretches if s.block >= 0 or s.kind == "unloaded"]


def kept_stretches(folder: Path) -> list[Stretch]:
    """Of the blocks that ended before the proof was interrupted."""
    path = folder / _KEPT
    if not path.is_file():
        return []
    kept = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        at = f"{path}, line {number}"
        try:
            kept.append(from_mapping(json.loads(line), Stretch, at=at))
        except ValueError as error:
            raise InputError(
                f"the line is no stretch: {error}", at=at, help="begin a new proof"
            ) from error
    return kept


async def _block(
    stage: Stage,
    contestants: Sequence[Contestant],
    arms: Sequence[ServingArm],
    *,
    block: int,
    seed: int,
) -> None:
    """Every arm at all of its rates; the arm of the last comparison's baseline twice (A/A)."""
    waited_s = wait_for_quiet(stage.progress, _QUIET_WAIT_S)
    if waited_s > 1.0:
        stage.ledger.add("waited", f"{waited_s:.0f} s for a quiet machine", block=block)
    here = [
        (contestant, arm)
        for contestant, arm in zip(contestants, arms, strict=True)
        if contestant.every_block or block == 0
    ]
    twice = stage.experiment.comparisons[-1].baseline
    for index in run_order(len(here), block):
        contestant, arm = here[index]
        stage.progress.note(f"block {block + 1}: '{arm.name}', seed {seed}")
        stage.ledger.add("started", "", arm=arm.name, block=block, seed=seed)
        numbered = list(enumerate(arm.rates_per_s))
        for turn, rate in numbered if block % 2 == 0 else numbered[::-1]:
            place = 2 * turn + 1
            await stage.at_rate(contestant, rate, block=block, seed=seed, turn=place)
            if arm.name == twice:
                await stage.at_rate(
                    contestant, rate, kind="aa", block=block, seed=seed, turn=place + 1
                )
        if block == 0:
            load = stage.experiment.workload
            await stage.run(
                contestant,
                load.offline(stage.experiment.name, OFFLINE_REQUESTS),
                kind="offline",
                block=block,
                seed=seed,
                turn=0,
            )
        stage.ledger.add("finished", "", arm=arm.name, block=block, seed=seed)


def _keep(folder: Path, stretches: Sequence[Stretch]) -> None:
    write_text(folder / _KEPT, "".join(json.dumps(asdict(s)) + "\n" for s in stretches))
