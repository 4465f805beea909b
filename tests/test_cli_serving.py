"""`twofold plan --serve` from the command line: an answer, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from twofold.cli.entry import _main
from twofold.serving_document import read_serving_plan

_PLAN = ["plan", "llama-3.1-8b", "--fleet", "h100-sxm:2", "--serve", "code"]

_TWO_POOLS = """
[[pool]]
machine = "hgx-h100"
[[pool]]
machine = "hgx-h200"
"""


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
        (["--serve", "chat", "--rate", "0"], "--rate"),
        (["--serve", "chat", "--rate", "inf"], "--rate"),
        (["--serve", "chat", "--rate", "nan"], "--rate"),
        (["--serve", "chat", "--users", "0"], "--users"),
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


@pytest.mark.slow
def test_a_plan_that_no_engine_takes_as_it_is_says_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "serve.json"
    options = ["--precision", "bf16,int8", "--rate", "3", "-o", str(path)]
    assert _main([*_PLAN, *options]) == 0
    told = capsys.readouterr().out.splitlines()[-1]
    plan = read_serving_plan(path).plan
    assert plan.weight_precision == "int8"
    assert told.startswith("next: plan with --weights, a folder or a name on the hub of weights")
    assert _main([*_PLAN, *options, "--weights", "of/quantised"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"next: twofold serve {path}"
    assert _main(["serve", str(path)]) == 0
    assert capsys.readouterr().out.startswith("vllm serve of/quantised ")


@pytest.mark.slow
def test_what_is_written_can_be_handed_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A fleet of which the best plan has prompts apart, which vLLM's command alone has not."""
    fleet, path = tmp_path / "two.toml", tmp_path / "serve.json"
    fleet.write_text(_TWO_POOLS)
    options = ["--fleet", str(fleet), "--serve", "chat", "--tpot", "12ms", "-o", str(path)]
    _main(["plan", "llama-3.1-8b", *options])
    told = capsys.readouterr().out
    assert _main(["serve", str(path)]) == 0
    assert "the best plan cannot be handed over: vLLM's" in told
    assert "the nearest that can" in told


def test_what_never_fits_is_answered_with_no(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--fleet", "h100-sxm:8", "--serve", "chat", "--rate", "1"]
    assert _main(["plan", "deepseek-v3", *options]) == 1
    assert "no plan serves 'deepseek-v3'" in capsys.readouterr().err
