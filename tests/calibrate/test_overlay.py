from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.machines import calibrated_fleet
from twofold.calibrate import default_overlay_path, read_overlay, read_rows, write_overlay
from twofold.errors import EnvironmentLack, InputError

FLEET = calibrated_fleet()


def written(tmp_path: Path) -> Path:
    path = tmp_path / "calibration.json"
    write_overlay(FLEET, path, host={"cores": 2, "cpu": {"model": "x"}}, date="2026-11-24")
    return path


def test_a_fleet_survives_the_file_exactly(tmp_path: Path) -> None:
    overlay = read_overlay(written(tmp_path))
    assert overlay.fleet == FLEET
    assert overlay.date == "2026-11-24"
    assert overlay.host == {"cores": 2, "cpu": {"model": "x"}}


def test_the_default_path_is_in_twofolds_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWOFOLD_HOME", "/somewhere")
    assert default_overlay_path() == Path("/somewhere/calibration.json")


def test_a_machine_never_calibrated_is_told_how(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not calibrated") as caught:
        read_overlay(tmp_path / "nothing.json")
    assert "twofold calibrate" in (caught.value.help or "")


def edit(path: Path, change) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda v: v.update(schema_version=99), "schema version 99"),
        (lambda v: v.update(flet={}), "no field 'flet'"),
        (lambda v: v["fleet"].update(pools=[]), "without a pool"),
        (lambda v: v["fleet"]["pools"][0]["node"]["accelerator"].pop("name"), "name"),
        (
            lambda v: v["fleet"]["pools"][0]["node"]["accelerator"]["flop_per_s"]["fp32"].update(
                value=-1.0
            ),
            "non-negative",
        ),
        (
            lambda v: v["fleet"]["pools"][0]["node"]["accelerator"]["curves"]["ops"][0].update(
                sizes=[5.0, 1.0]
            ),
            "rise",
        ),
    ],
)
def test_a_spoilt_file_is_refused_with_the_place(tmp_path: Path, change, fault: str) -> None:
    path = written(tmp_path)
    edit(path, change)
    with pytest.raises(InputError, match=fault):
        read_overlay(path)


def test_a_file_that_is_no_json_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    path.write_text("{")
    with pytest.raises(InputError, match="not JSON"):
        read_overlay(path)


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentLack, match="cannot be written"):
        write_overlay(FLEET, tmp_path / "file" / "calibration.json", host={}, date="2026-11-24")


def test_rows_are_read_and_a_torn_last_line_forgiven(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"kind": "disk"}\n{"kind": "copy"}\n{"kind": "ro')
    assert [row["kind"] for row in read_rows(path)] == ["disk", "copy"]


@pytest.mark.parametrize("text", ['{"kind": "ro\n{"kind": "disk"}\n', '{"no": "kind"}\n', "[]\n"])
def test_other_faults_in_rows_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(text)
    with pytest.raises(InputError, match="line 1"):
        read_rows(path)
