"""`twofold prove --check`: does everything derived follow from the samples, and are they all there?

Hashes find corruption, not forgery: whoever can write the file can also write its hash. What the
check proves is that the claim follows from the samples that the file shows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from twofold.errors import TwofoldError
from twofold.evidence.attempts import Place, count_event, explained
from twofold.evidence.derive import derive
from twofold.evidence.files import predictions_hash, read_with_hash
from twofold.evidence.records import Arm, Evidence, Sample

RELATIVE_TOLERANCE = 1e-9
ABSOLUTE_TOLERANCE = 1e-12
"""For figures near zero, such as a loss difference between equal arms."""
MOST_BLOCKS = 10_000
"""More blocks than this are no plan; they are not looked for one by one."""


def check(path: Path) -> list[str]:
    """Everything that does not agree, as sentences; empty when all does.

    Recomputes every derived figure; verifies the content hash and the hash of the predictions;
    requires complete samples, a ledger that has every run, claims that are those of the experiment
    file, tuning to an interior optimum, and seeds that tuning never saw.
    Hashes find corruption, not forgery. Raises InputError for a file that is not evidence.
    """
    evidence, intact = read_with_hash(path)
    hashed = [] if intact else ["the content is not what was hashed when the file was written"]
    return [
        *hashed,
        *_predictions(evidence),
        *_derived(evidence),
        *_experiment(evidence),
        *_completeness(evidence),
        *_tuning(evidence),
    ]


def differences(stored: Any, computed: Any, place: str = "derived") -> Iterator[str]:
    """Where two decoded JSON values differ, numbers by more than 1e-9 of their size."""
    if isinstance(stored, Mapping) and isinstance(computed, Mapping):
        for key in sorted(stored.keys() | computed.keys(), key=str):
            if key in stored and key in computed:
                yield from differences(stored[key], computed[key], f"{place}.{key}")
            else:
                yield f"{place}.{key} is only {'stored' if key in stored else 'recomputed'}"
    elif isinstance(stored, list | tuple) and isinstance(computed, list | tuple):
        if len(stored) != len(computed):
            yield f"{place} has {len(stored)} entries, recomputed {len(computed)}"
        for index, (ours, theirs) in enumerate(zip(stored, computed, strict=False)):
            yield from differences(ours, theirs, f"{place}.{index}")
    elif not _equal(stored, computed):
        yield f"{place} is {stored!r}, recomputed {computed!r}"


def _equal(stored: Any, computed: Any) -> bool:
    if _is_number(stored) and _is_number(computed):
        return math.isclose(
            stored, computed, rel_tol=RELATIVE_TOLERANCE, abs_tol=ABSOLUTE_TOLERANCE
        )
    return bool(stored == computed)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _predictions(evidence: Evidence) -> list[str]:
    if evidence.predictions_hash is None:
        predicted = [arm.name for arm in evidence.arms if arm.prediction is not None]
        return [f"the predictions of {', '.join(predicted)} were not hashed"] if predicted else []
    if predictions_hash(evidence.arms) != evidence.predictions_hash:
        return ["the predictions are not those that were hashed before the first sample"]
    return []


def _derived(evidence: Evidence) -> list[str]:
    if evidence.derived is None:
        return ["no derived figures were written"]
    try:
        computed = derive(evidence)
    except TwofoldError as error:
        return [error.what if error.at is None else f"{error.what} ({error.at})"]
    return list(differences(asdict(evidence.derived), asdict(computed)))


def _experiment(evidence: Evidence) -> Iterator[str]:
    """What is claimed, and by which rule, is what the experiment file said beforehand."""
    written = evidence.experiment
    if not written:
        yield "the experiment file was not recorded"
        return
    try:
        claims = [
            (claim["kind"], claim["arm"], claim["baseline"]) for claim in written["comparisons"]
        ]
        margin, names = written["quality"]["margin"], set(written["arms"])
    except (KeyError, TypeError, IndexError) as error:
        yield f"the experiment cannot be read: {type(error).__name__} {error}"
        return
    if claims != evidence.comparisons:
        yield f"the comparisons are {evidence.comparisons}, but the experiment has {claims}"
    if not _equal(margin, evidence.margin):
        yield f"the margin is {evidence.margin}, but the experiment has {margin!r}"
    arms = {arm.name for arm in evidence.arms}
    if names != arms:
        yield f"the arms are {_listed(arms)}, but the experiment has {_listed(names)}"


def _listed(names: set[Any]) -> str:
    return ", ".join(sorted(map(str, names)))


def _completeness(evidence: Evidence) -> Iterator[str]:
    """Every arm in every planned block at every length has a sample, or the ledger says why not."""
    if evidence.planned_blocks > MOST_BLOCKS:
        yield f"{evidence.planned_blocks} planned blocks are more than any proof has"
        return
    present = {(s.arm, s.block, s.length) for s in evidence.samples if s.role == "run"}
    excused = explained(evidence)
    arms = {arm.name: arm for arm in evidence.arms}
    lost: set[Place] = set()
    for arm in evidence.arms:
        for block in range(evidence.planned_blocks):
            for length in range(len(arm.lengths_tokens)):
                if (arm.name, block, length) in present:
                    continue
                lost.add((arm.name, block))
                if (arm.name, block) not in excused:
                    yield (
                        f"'{arm.name}' has no run in block {block} at length {length}, and the "
                        "ledger does not say why"
                    )
    yield from _attempts(evidence, lost & excused)
    for index, sample in enumerate(evidence.samples):
        arm_of = arms.get(sample.arm)
        fixed_length = None if arm_of is None else arm_of.fixed_length
        if sample.role == "run" and sample.fixed != (sample.length == fixed_length):
            yield f"samples.{index} is marked fixed={sample.fixed} at length {sample.length}"
        if arm_of is not None and sample.role == "run" and _off_plan(arm_of, sample):
            yield (
                f"samples.{index} has {sample.tokens} tokens, but length {sample.length} of "
                f"'{sample.arm}' was fixed at {arm_of.lengths_tokens[sample.length]}"
            )
        if sample.role == "run" and not 0 <= sample.block < evidence.planned_blocks:
            yield f"samples.{index} is of block {sample.block}, which was not planned"


def _attempts(evidence: Evidence, excused: set[Place]) -> Iterator[str]:
    """A ledger that was kept has every run begun and ended, but for those it says were lost."""
    if not evidence.ledger:
        return
    started, finished = count_event(evidence, "started"), count_event(evidence, "finished")
    for arm in evidence.arms:
        for block in range(evidence.planned_blocks):
            for event, seen in (("started", started), ("finished", finished)):
                if not seen[arm.name, block] and (arm.name, block) not in excused:
                    yield f"the ledger does not show that '{arm.name}' {event} in block {block}"


def _off_plan(arm: Arm, sample: Sample) -> bool:
    """Whether a run was not of the length fixed beforehand, by more than one step."""
    if arm.command is not None or not 0 <= sample.length < len(arm.lengths_tokens):
        return False
    off_tokens = abs(sample.tokens - arm.lengths_tokens[sample.length])
    return off_tokens * max(1, sample.num_steps) > sample.tokens


def _tuning(evidence: Evidence) -> Iterator[str]:
    if evidence.tuning is None:
        return
    try:
        for name, tuned in evidence.tuning["arms"].items():
            yield from _tuned_arm(name, tuned)
        seeds = set(evidence.tuning["seeds"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        yield f"the tuning cannot be read: {type(error).__name__} {error}"
        return
    used = sorted(seeds & {s.seed for s in evidence.samples if s.role == "run"})
    if used:
        yield f"the seeds {', '.join(map(str, used))} were used in tuning and in the proof"


def _tuned_arm(name: str, tuned: Mapping[str, Any]) -> Iterator[str]:
    """The winner has the lowest score, and lies inside its grid and not on the edge of it."""
    grid, winner = tuned["grid"], tuned["winner"]
    scored = [run for run in tuned["runs"] if run["score"] is not None]
    best = min(scored, key=lambda run: float(run["score"]))
    for axis in ("learning_rate", "global_batch"):
        tried = {run[axis] for run in tuned["runs"]}
        if winner[axis] != best[axis]:
            yield f"tuning of '{name}': the winner's {axis} {winner[axis]} is not the best run's"
        smallest = axis == "global_batch" and winner[axis] == 1  # there is nothing below
        inside = min(grid[axis]) < winner[axis] or smallest
        if not (inside and winner[axis] < max(grid[axis])):
            yield f"tuning of '{name}': {axis} {winner[axis]} is on the edge of its grid"
        for value in grid[axis]:
            if value not in tried:
                yield f"tuning of '{name}': {axis} {value} is in the grid but was never run"
