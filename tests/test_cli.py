"""The verbs as a person types them: answers, exit codes, errors that help."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


def twofold(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "twofold.cli", *words],
        cwd=folder,
        env=os.environ | {"TWOFOLD_HOME": str(folder / "home"), "COLUMNS": "100"},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_doctor_describes_the_machine(tmp_path: Path) -> None:
    done = twofold("doctor", "--json", folder=tmp_path)
    assert done.returncode == 0
    said = json.loads(done.stdout)
    assert said["cores"]["usable"] > 0
    assert said["calibration"] is None
    text = twofold("doctor", folder=tmp_path)
    assert "processor" in text.stdout
    assert text.stdout.splitlines()[-1] == "next: twofold calibrate"


def test_version_is_printed(tmp_path: Path) -> None:
    assert twofold("--version", folder=tmp_path).stdout.startswith("twofold ")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["prove"], "one of EXPERIMENT"),
        (["prove", "missing.toml"], "cannot be read"),
        (["prove", "--check", "missing.json"], "cannot be read"),
        (["prove", "--resume", "."], "no proof that was begun"),
        (["run", "missing.json"], "cannot be read"),
        (["run", "."], "holds no plan.json"),
        (["plan", "missing.toml", "--calibration", "missing.json"], "not calibrated"),
        (["prove", "bad.toml"], "not TOML"),
        (["prove", "--check", "bad.toml"], "not JSON"),
        (["plan", "bad.toml", "--tokens", "many"], "not a count"),
    ],
)
def test_bad_input_is_told_with_help_and_exit_code_2(
    tmp_path: Path, words: list[str], said: str
) -> None:
    (tmp_path / "bad.toml").write_text("name = [")
    if words[0] == "plan" and "--calibration" not in words:
        pytest.importorskip("torch")
        words = [*words, "--calibration", "none.json"]
        said = "not calibrated"
    done = twofold(*words, folder=tmp_path)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert "help:" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_an_unknown_flag_is_exit_code_2(tmp_path: Path) -> None:
    assert twofold("prove", "--chek", "x", folder=tmp_path).returncode == 2


def test_an_unknown_verb_is_exit_code_2(tmp_path: Path) -> None:
    assert twofold("prooove", folder=tmp_path).returncode == 2


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_no_permission_is_exit_code_3(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    done = twofold("prove", "x.toml", "--runs", str(tmp_path / "runs"), folder=tmp_path)
    assert done.returncode in (2, 3)
