"""`twofold plan --serve` from the command line: an answer, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from twofold.cli.entry import _main
from twofold.serving_document import read_serving_plan

_PLAN = ["plan", "llama-3.1-8b", "--fleet", "h100-sxm:2", "--serve", "code"]


@pytest.mark.slow
def test_a_plan_is_written_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "serve.json"
    assert _main([*_PLAN, "--rate", "3", "-o", str(path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["met"]
    document = read_serving_plan(path)
    assert document.plan.num_devices <= 8
    assert document.estimate is not None
    roles = {one["role"]: one for one in told["baselines"]}
    assert set(roles) == {"newcomer", "sensible"}
    assert told["best"][0]["carried"] >= roles["sensible"]["carried"]


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        (["--serve", "chatt"], "perhaps 'chat'"),
        (["--serve", "chat", "--ttft", "soon"], "--ttft"),
        (["--serve", "chat", "--rate", "0"], "rate"),
        (["--serve", "chat", "--rate", "2", "--users", "3"], "not both"),
        (["--serve", "chat", "--tokens", "2T"], "--tokens is for training"),
        (["--serve", "chat", "--precision", "int3"], "--precision"),
        (["--rate", "2"], "goes with --serve"),
        (["--serve", "nowhere.toml"], "nowhere.toml"),
    ],
)
def test_bad_input_is_refused(
    options: list[str], wrong: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _main(["plan", "llama-3.1-8b", "--fleet", "h100-sxm:2", *options]) == 2
    assert wrong in capsys.readouterr().err


def test_what_never_fits_is_answered_with_no(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--fleet", "h100-sxm:8", "--serve", "chat", "--rate", "1"]
    assert _main(["plan", "deepseek-v3", *options]) == 1
    assert "no plan serves 'deepseek-v3'" in capsys.readouterr().err
