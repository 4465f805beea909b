import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.evidence.synthetic import build
from twofold.errors import EnvironmentLack, InputError
from twofold.evidence import predictions_hash, read_evidence, write_evidence
from twofold.evidence.records import LedgerEntry, Sample

finite = st.floats(allow_nan=False, allow_infinity=False)
unknown = st.none() | finite
samples = st.builds(
    Sample,
    block=st.integers(), position=st.integers(), seed=st.integers(), length=st.integers(),
    tokens=st.integers(), num_steps=st.integers(),
    startup_s=finite, train_s=finite, cpu_s=finite, step_time_median_s=finite,
    tune_loss=unknown, test_loss=unknown, train_loss=unknown, peak_memory_bytes=unknown,
    energy_j=unknown, load_before=unknown, load_after=unknown, steal_fraction=unknown,
    curve=st.lists(st.tuples(st.integers(), finite, finite), max_size=3),
)  # fmt: skip
ledgers = st.lists(st.builds(LedgerEntry, block=st.integers(), seed=st.integers()), max_size=3)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "evidence.json"


def rewrite(path: Path, change: Any) -> None:
    """Alter the file as an editor would."""
    envelope = json.loads(path.read_text())
    change(envelope)
    path.write_text(json.dumps(envelope))


def test_what_is_written_is_read(path: Path) -> None:
    evidence = build()
    write_evidence(evidence, path)
    assert read_evidence(path) == evidence


def test_writing_what_was_read_changes_no_byte(path: Path, tmp_path: Path) -> None:
    write_evidence(build(), path)
    again = tmp_path / "again.json"
    write_evidence(read_evidence(path), again)
    assert again.read_bytes() == path.read_bytes()


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(some=st.lists(samples, max_size=4), ledger=ledgers, text=st.text(), margin=finite)
def test_any_finite_record_survives(
    path: Path, some: list[Sample], ledger: list[LedgerEntry], text: str, margin: float
) -> None:
    evidence = replace(
        build(blocks=1, derived=False), samples=some, ledger=ledger, name=text, margin=margin
    )
    write_evidence(evidence, path)
    assert read_evidence(path) == evidence


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_number_that_json_does_not_have_is_refused_with_its_place(path: Path, bad: float) -> None:
    evidence = build(derived=False)
    evidence = replace(evidence, samples=[replace(evidence.samples[0], train_s=bad)])
    with pytest.raises(InputError) as error:
        write_evidence(evidence, path)
    assert "samples.0.train_s" in str(error.value)
    assert not path.exists()


def test_an_unknown_interval_is_null(path: Path) -> None:
    write_evidence(build(blocks=1, aa_pairs=1), path)
    result = json.loads(path.read_text())["evidence"]["derived"]["results"][0]
    assert result["fixed"]["low"] is None
    assert result["fixed"]["high"] is None


def test_a_failed_write_leaves_the_old_file_and_no_scratch(path: Path) -> None:
    write_evidence(build(derived=False), path)
    before = path.read_bytes()
    bad = replace(build(derived=False), environment={"x": math.nan})
    with pytest.raises(InputError):
        write_evidence(bad, path)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["evidence.json"]


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentLack):
        write_evidence(build(derived=False), tmp_path / "file" / "evidence.json")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ('{"kind": NaN}', "NaN"),
        ('{"kind": 1e999}', "too large"),
        ("[" * 100_000, "not JSON"),
        ("[]", "not evidence"),
        ('{"kind": "plan"}', "not evidence"),
        ('{"kind": "evidence", "content_hash": "", "evidence": {}}', "schema version None"),
    ],
)
def test_a_file_that_is_no_evidence_is_refused(path: Path, text: str, message: str) -> None:
    path.write_text(text)
    with pytest.raises(InputError, match=message) as error:
        read_evidence(path)
    assert str(path) in str(error.value)


def test_a_missing_file_is_named(path: Path) -> None:
    with pytest.raises(InputError) as error:
        read_evidence(path)
    assert str(path) in str(error.value)


def test_faults_are_told_with_their_field(path: Path) -> None:
    write_evidence(build(), path)
    rewrite(path, lambda e: e["evidence"]["samples"][3].update(train_s="soon"))
    with pytest.raises(InputError, match=r"samples\.3\.train_s"):
        read_evidence(path)


@pytest.mark.parametrize("place", ["evidence", "arm", "derived"])
def test_an_unknown_key_is_refused(path: Path, place: str) -> None:
    write_evidence(build(), path)
    content = {
        "evidence": lambda e: e["evidence"],
        "arm": lambda e: e["evidence"]["arms"][1],
        "derived": lambda e: e["evidence"]["derived"]["results"][0]["fixed"],
    }[place]
    rewrite(path, lambda e: content(e).update(speed=3))
    with pytest.raises(InputError, match="speed"):
        read_evidence(path)


def test_another_schema_version_is_refused(path: Path) -> None:
    write_evidence(build(), path)
    rewrite(path, lambda e: e["evidence"].update(schema_version=2))
    with pytest.raises(InputError, match="schema version 2"):
        read_evidence(path)


def test_an_altered_file_is_not_read(path: Path) -> None:
    write_evidence(build(), path)
    rewrite(path, lambda e: e["evidence"]["samples"][0].update(cpu_s=1.0))
    with pytest.raises(InputError, match="not what was hashed"):
        read_evidence(path)


def test_the_predictions_hash_sees_every_prediction() -> None:
    arms = build(derived=False).arms
    before = predictions_hash(arms)
    prediction = arms[2].prediction
    assert prediction is not None
    altered = replace(prediction, step_time_s=prediction.step_time_s * (1 + 1e-12))
    assert predictions_hash([*arms[:2], replace(arms[2], prediction=altered), *arms[3:]]) != before
    assert predictions_hash(list(reversed(arms))) != before
    assert predictions_hash(arms) == before
