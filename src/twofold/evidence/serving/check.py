"""`twofold prove --check` for serving: does what is claimed follow from the requests shown?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from twofold.errors import TwofoldError
from twofold.evidence.check import differences
from twofold.evidence.serving.derive import derive_serving, targets_of
from twofold.evidence.serving.files import read_serving_evidence, serving_predictions_hash
from twofold.evidence.serving.records import ServingEvidence


def check_serving(path: Path) -> list[str]:
    """Everything that does not agree, as sentences; empty when all does.

    Recomputes the targets from the unloaded stretches and every derived figure; verifies both
    hashes; requires that every arm was run at each of its rates in every block, and that claims
    and targets are those of the experiment file.
    """
    evidence, intact = read_serving_evidence(path)
    hashed = [] if intact else ["the content is not what was hashed when the file was written"]
    return [
        *hashed,
        *_predictions(evidence),
        *_targets(evidence),
        *_derived(evidence),
        *_experiment(evidence),
        *_completeness(evidence),
    ]


def _predictions(evidence: ServingEvidence) -> Iterator[str]:
    if evidence.predictions_hash is None:
        yield "predictions and rates were not hashed"
    elif serving_predictions_hash(evidence.arms) != evidence.predictions_hash:
        yield "predictions or rates are not those that were hashed before the first sample"


def _targets(evidence: ServingEvidence) -> Iterator[str]:
    unloaded = [s for s in evidence.stretches if s.kind == "unloaded"]
    baseline = evidence.comparisons[0][1] if evidence.comparisons else ""
    if not unloaded or any(s.arm != baseline for s in unloaded):
        yield f"the targets do not come from '{baseline}' alone on the machine"
        return
    times = {t.name: t.times_unloaded for t in evidence.targets}
    attainment = evidence.targets[0].targets.attainment
    expected = [asdict(t) for t in targets_of(unloaded, times, attainment)]
    yield from differences([asdict(t) for t in evidence.targets], expected, "targets")


def _derived(evidence: ServingEvidence) -> Iterator[str]:
    if evidence.derived is None:
        yield "no derived figures were written"
        return
    try:
        computed = derive_serving(evidence)
    except TwofoldError as error:
        yield error.what
        return
    yield from differences(asdict(evidence.derived), asdict(computed))


def _experiment(evidence: ServingEvidence) -> Iterator[str]:
    """What is claimed, and by which rule, is what the experiment file said beforehand."""
    written = evidence.experiment
    try:
        claims = [(claim["arm"], claim["baseline"]) for claim in written["comparisons"]]
        times = written.get("targets", {}).get("times_unloaded")
        names = set(written["arms"])
    except (KeyError, TypeError, AttributeError) as error:
        yield f"the experiment cannot be read: {type(error).__name__} {error}"
        return
    if claims != evidence.comparisons:
        yield f"the comparisons are {evidence.comparisons}, but the experiment has {claims}"
    ours = {t.name: t.times_unloaded for t in evidence.targets}
    if times is not None and times != ours:
        yield f"the targets are {ours} times unloaded, but the experiment has {times}"
    missing = names - {arm.name for arm in evidence.arms}
    if missing:
        yield f"the experiment has arms that were left out: {', '.join(sorted(missing))}"


def _completeness(evidence: ServingEvidence) -> Iterator[str]:
    """Every arm at every rate in every planned block, at one seed a block."""
    seeds: dict[int, set[int]] = {}
    for stretch in evidence.stretches:
        if stretch.kind == "rate" and stretch.block >= 0:
            seeds.setdefault(stretch.block, set()).add(stretch.seed)
    for block, found in sorted(seeds.items()):
        if len(found) > 1:
            yield f"block {block} was run with {len(found)} seeds: its arms are no pairs"
    for arm in evidence.arms:
        for block in range(evidence.planned_blocks if arm.every_block else 1):
            rates = {
                s.rate_per_s
                for s in evidence.stretches
                if s.arm == arm.name and s.block == block and s.kind == "rate"
            }
            for rate in arm.rates_per_s:
                if rate not in rates:
                    yield f"'{arm.name}' was not run at {rate:.3g} requests/s in block {block}"
