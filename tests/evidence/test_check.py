import json
import random
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from tests.evidence.synthetic import build
from twofold.document import content_hash
from twofold.errors import InputError
from twofold.evidence import check, derive, write_evidence
from twofold.evidence.check import differences
from twofold.evidence.records import Evidence, LedgerEntry

Place = tuple[str | int, ...]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "evidence.json"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The text of a file of few samples."""
    path = tmp_path_factory.mktemp("small") / "evidence.json"
    evidence = build(blocks=3, aa_pairs=2)
    bare = [replace(sample, curve=[]) for sample in evidence.samples]
    write_evidence(replace(evidence, samples=bare, arm_roofline={}), path)
    return path.read_text()


def numbers(value: Any, place: Place = ()) -> Iterator[Place]:
    """The places of all numbers in decoded JSON."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from numbers(item, (*place, key))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from numbers(item, (*place, index))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield place


def alter(document: Any, place: Place) -> None:
    """Change one number by a little: 1e-6 of it, or 1 of an integer."""
    for key in place[:-1]:
        document = document[key]
    value = document[place[-1]]
    document[place[-1]] = value + 1 if isinstance(value, int) else value * (1 + 1e-6) + 1e-6


def forge(path: Path, evidence: Evidence) -> list[str]:
    """Check a file whose hash is right: what remains to be found must be found by arithmetic."""
    write_evidence(evidence, path)
    return check(path)


def altered_file(path: Path, change: Callable[[Any], None], *, rehash: bool) -> list[str]:
    write_evidence(build(), path)
    envelope = json.loads(path.read_text())
    change(envelope["evidence"])
    if rehash:
        envelope["content_hash"] = content_hash(envelope["evidence"])
    path.write_text(json.dumps(envelope))
    return check(path)


def test_untouched_evidence_agrees(path: Path) -> None:
    assert forge(path, build()) == []
    assert forge(path, build(7, blocks=6, aa_pairs=2)) == []


def test_evidence_of_too_few_pairs_agrees_too(path: Path) -> None:
    assert forge(path, build(blocks=1, aa_pairs=1)) == []


def test_any_altered_number_is_found(path: Path) -> None:
    """Numbers from everywhere in the file, the hash left as it was."""
    write_evidence(build(), path)
    whole = path.read_text()
    places = list(numbers(json.loads(whole)["evidence"]))
    assert len(places) > 5000
    for place in random.Random(0).sample(places, 25):
        envelope = json.loads(whole)
        alter(envelope["evidence"], place)
        path.write_text(json.dumps(envelope))
        try:
            findings = check(path)
        except InputError as error:  # such as a schema version that does not exist
            findings = [error.what]
        assert findings, place


def test_any_altered_derived_number_is_found_without_the_hash() -> None:
    computed = json.loads(json.dumps(asdict(derive(build()))))
    places = list(numbers(computed))
    assert len(places) > 150
    for place in places:
        stored = json.loads(json.dumps(computed))
        alter(stored, place)
        assert list(differences(stored, computed)), place


@pytest.mark.parametrize("field", ["train_s", "startup_s", "tokens", "test_loss", "seed", "block"])
def test_an_altered_sample_is_found_without_the_hash(path: Path, field: str) -> None:
    def change(evidence: Any) -> None:
        index = next(
            i for i, s in enumerate(evidence["samples"]) if s["role"] == "run" and s["fixed"]
        )
        alter(evidence, ("samples", index, field))

    assert altered_file(path, change, rehash=True)


def test_a_flattering_verdict_is_found(path: Path) -> None:
    evidence = build(worse={"twofold": 0.2})
    assert evidence.derived is not None
    results = [replace(r, verdict="proven", reason="trust me") for r in evidence.derived.results]
    forged = replace(evidence, derived=replace(evidence.derived, results=results))
    assert any("verdict is 'proven', recomputed 'not proven'" in f for f in forge(path, forged))


def test_evidence_without_derived_figures_is_said(path: Path) -> None:
    assert forge(path, build(derived=False)) == ["no derived figures were written"]


def test_samples_that_contradict_themselves_are_a_finding(path: Path) -> None:
    evidence = build()
    doubled = replace(evidence, samples=[*evidence.samples, evidence.samples[-1]])
    assert any("run twice" in finding for finding in forge(path, doubled))


def test_a_changed_prediction_is_found(path: Path) -> None:
    def change(evidence: Any) -> None:
        evidence["arms"][0]["prediction"]["peak_memory_bytes"] *= 1.1

    assert altered_file(path, change, rehash=True) == [
        "the predictions are not those that were hashed before the first sample"
    ]


def test_predictions_that_were_never_hashed_are_found(path: Path) -> None:
    findings = forge(path, replace(build(), predictions_hash=None))
    assert findings == [
        "the predictions of naive, sensible, twofold, same-maths, recipe-only were not hashed"
    ]


def rederived(evidence: Evidence) -> Evidence:
    return replace(evidence, derived=derive(evidence))


def test_a_dropped_run_must_be_explained_by_the_ledger(path: Path) -> None:
    evidence = build()
    kept = [s for s in evidence.samples if (s.arm, s.block, s.length) != ("twofold", 2, 0)]
    dropped = rederived(replace(evidence, samples=kept))
    assert any("'twofold' has no run in block 2 at length 0" in f for f in forge(path, dropped))
    entry = LedgerEntry(
        time="2026-11-24T07:00:00+00:00",
        event="failed",
        arm="twofold",
        block=2,
        seed=102,
        detail="exit status 137",
    )
    assert forge(path, replace(dropped, ledger=[*dropped.ledger, entry])) == []
    earlier = replace(entry, time="2026-11-23T07:00:00+00:00")  # of another proof
    assert forge(path, replace(dropped, ledger=[*dropped.ledger, earlier])) != []


@pytest.mark.parametrize("event", ["started", "finished"])
def test_a_run_that_the_ledger_does_not_have_is_found(path: Path, event: str) -> None:
    evidence = build()
    index = next(
        i for i, e in enumerate(evidence.ledger) if (e.event, e.arm, e.block) == (event, "naive", 2)
    )
    others = [e for i, e in enumerate(evidence.ledger) if i != index]
    missing = [f"the ledger does not show that 'naive' {event} in block 2"]
    assert forge(path, replace(evidence, ledger=others)) == missing
    earlier = replace(evidence.ledger[index], time="2026-11-23T07:00:00+00:00")  # another proof's
    assert forge(path, replace(evidence, ledger=[earlier, *others])) == missing
    failed = replace(evidence.ledger[index], event="failed")  # explains no run that is there
    assert forge(path, replace(evidence, ledger=[*others, failed])) == missing
    assert forge(path, replace(evidence, ledger=[])) == []


def written(change: Callable[[Any], None]) -> Evidence:
    evidence = build()
    experiment = json.loads(json.dumps(evidence.experiment))
    change(experiment)
    return replace(evidence, experiment=experiment)


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        (lambda e: e["comparisons"].reverse(), "the comparisons are"),
        (lambda e: e["comparisons"].pop(), "the comparisons are"),
        (lambda e: e["comparisons"][1].update(kind="same maths"), "the comparisons are"),
        (lambda e: e["quality"].update(margin=0.01), "the margin is 0.03, but the experiment has"),
        (lambda e: e["quality"].update(margin="0.03"), "the margin is 0.03"),
        (lambda e: e["arms"].update(slow={}), "the arms are"),
        (lambda e: e["arms"].pop("sensible"), "the arms are"),
        (lambda e: e.pop("quality"), "the experiment cannot be read: KeyError 'quality'"),
        (lambda e: e.update(comparisons=3), "the experiment cannot be read: TypeError"),
        (lambda e: e.update(comparisons=["x"]), "the experiment cannot be read: TypeError"),
        (lambda e: e.update(arms=[{}]), "the experiment cannot be read: TypeError"),
        (lambda e: e.clear(), "the experiment file was not recorded"),
    ],
)
def test_claims_other_than_the_experiments_are_found(
    path: Path, change: Callable[[Any], None], finding: str
) -> None:
    (found,) = forge(path, written(change))
    assert found.startswith(finding)


@pytest.mark.parametrize("value", ["x", [1], 10**300, 10**400, 5e-324])
@pytest.mark.parametrize(
    "place",
    [
        ("environment", "host"),
        ("environment", "host", "cores"),
        ("environment", "host", "cores", "usable"),
        ("arms", 2, "plan"),
        ("arms", 2, "plan", "plan"),
        ("arms", 2, "plan", "plan", "precision"),
        ("arms", 2, "lengths_tokens", 1),
        ("samples", -1, "tokens"),
        ("samples", -1, "num_steps"),
        ("samples", -1, "block"),
        ("samples", -1, "train_s"),
        ("samples", -1, "load_after"),
        ("planned_blocks",),
        ("margin",),
        ("arm_flop_per_token", "twofold"),
        ("roof_flop_per_s", "bf16"),
        ("derived", "crossings", 0, "tokens"),
        ("tuning", "arms"),
        ("tuning", "seeds"),
        ("tuning", "arms", "naive", "runs", 0, "score"),
    ],
    ids=lambda place: ".".join(map(str, place)) if isinstance(place, tuple) else None,
)
def test_whatever_stands_there_is_a_finding_and_no_crash(
    path: Path, small: str, place: Place, value: Any
) -> None:
    envelope = json.loads(small)
    inner = envelope["evidence"]
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    path.write_text(json.dumps(envelope))
    try:
        findings = check(path)
    except InputError as error:
        findings = [error.what]
    assert findings


def test_a_plan_of_too_many_blocks_is_not_gone_through(path: Path) -> None:
    findings = forge(path, rederived(replace(build(), planned_blocks=10**18)))
    assert "1000000000000000000 planned blocks are more than any proof has" in findings


def test_a_run_that_was_not_planned_is_found(path: Path) -> None:
    findings = forge(path, rederived(replace(build(), planned_blocks=3)))
    assert any("of block 3, which was not planned" in f for f in findings)


def test_a_wrong_fixed_mark_is_found(path: Path) -> None:
    evidence = build()
    samples = [replace(s, fixed=True) if s.length == 2 else s for s in evidence.samples]
    findings = forge(path, rederived(replace(evidence, samples=samples)))
    assert any("marked fixed=True at length 2" in f for f in findings)


def test_a_length_other_than_the_fixed_one_is_found(path: Path) -> None:
    evidence = build()
    samples = [
        replace(s, tokens=s.tokens // 2, num_steps=s.num_steps // 2) if s.arm == "naive" else s
        for s in evidence.samples
    ]
    findings = forge(path, rederived(replace(evidence, samples=samples)))
    assert any("was fixed at" in f for f in findings)


def test_seeds_that_tuning_saw_are_found(path: Path) -> None:
    evidence = build()
    assert evidence.tuning is not None
    findings = forge(path, replace(evidence, tuning=evidence.tuning | {"seeds": [1, 101]}))
    assert findings == ["the seeds 101 were used in tuning and in the proof"]


def tuned(change: Callable[[dict[str, Any]], None]) -> Evidence:
    evidence = build()
    assert evidence.tuning is not None
    tuning = json.loads(json.dumps(evidence.tuning))
    change(tuning["arms"]["twofold"])
    return replace(evidence, tuning=tuning)


def test_an_optimum_on_the_edge_is_found(path: Path) -> None:
    def narrow(arm: dict[str, Any]) -> None:
        arm["grid"]["learning_rate"].pop()

    assert forge(path, tuned(narrow)) == [
        "tuning of 'twofold': learning_rate 0.02 is on the edge of its grid"
    ]


def test_a_batch_of_one_is_no_edge(path: Path) -> None:
    def shrink(arm: dict[str, Any]) -> None:
        for run in arm["runs"]:
            run["global_batch"] //= 8
        arm["runs"] = [run for run in arm["runs"] if run["global_batch"]]
        arm["grid"]["global_batch"] = [1, 2]
        arm["winner"]["global_batch"] = 1

    assert forge(path, tuned(shrink)) == []


def test_a_winner_that_did_not_win_is_found(path: Path) -> None:
    def crown(arm: dict[str, Any]) -> None:
        arm["runs"][0]["score"] = 0.0

    assert len(forge(path, tuned(crown))) == 2


def test_a_grid_that_was_not_run_is_found(path: Path) -> None:
    def widen(arm: dict[str, Any]) -> None:
        arm["grid"]["global_batch"].append(64)

    assert forge(path, tuned(widen)) == [
        "tuning of 'twofold': global_batch 64 is in the grid but was never run"
    ]


def test_a_tuning_record_that_cannot_be_read_is_a_finding(path: Path) -> None:
    def spoil(arm: dict[str, Any]) -> None:
        del arm["winner"]

    assert forge(path, tuned(spoil)) == ["the tuning cannot be read: KeyError 'winner'"]


def test_numbers_agree_to_the_last_digits_only() -> None:
    assert list(differences({"a": 1.0}, {"a": 1.0 + 1e-12})) == []
    assert list(differences({"a": 1.0}, {"a": 1.0 + 1e-8})) == [
        "derived.a is 1.0, recomputed 1.00000001"
    ]
    assert list(differences({"a": 1}, {"b": 1})) == [
        "derived.a is only stored",
        "derived.b is only recomputed",
    ]
    assert list(differences([1, 2], [1])) == ["derived has 2 entries, recomputed 1"]
    assert list(differences(None, 0.0)) == ["derived is None, recomputed 0.0"]
