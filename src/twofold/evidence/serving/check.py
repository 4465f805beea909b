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
    if not evidence.targets:
        yield "there are no targets"
        return
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
    from_file = {
        "claimed": written.get("targets", {}).get("claimed"),
        "epsilon": written.get("quality", {}).get("epsilon"),
        "margin": written.get("quality", {}).get("margin"),
        "planned_blocks": None if evidence.smoke else written.get("budget", {}).get("blocks"),
    }
    for name, said in from_file.items():
        if said is not None and said != getattr(evidence, name):
            yield f"{name} is {getattr(evidence, name)}, but the experiment has {said}"
    wanted = written.get("targets", {}).get("attainment")
    if wanted is not None and any(t.targets.attainment != wanted for t in evidence.targets):
        yield f"a target wants another share than the experiment's {wanted}"
    warmup = evidence.workload.warmup_requests
    if any(s.num_warmup > warmup for s in evidence.stretches):
        yield f"a stretch leaves out more than its {warmup} requests of warming up"
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
    places = [(s.arm, s.kind, s.block, s.rate_per_s) for s in evidence.stretches if s.block >= 0]
    if len(set(places)) < len(places):
        yield "a stretch is there twice"
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
