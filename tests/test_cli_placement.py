"""Plans over unlike pools as a person types them, and every way to get the fleet file wrong."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.fleets import figure
from tests.machines import calibrated_fleet
from twofold.calibrate import default_overlay_path
from twofold.calibrate.overlay import write_overlay
from twofold.cli import main
from twofold.document import read_plan
from twofold.fleet import Link

EXAMPLES = Path(__file__).parents[1] / "examples"
TINY = str(EXAMPLES / "tiny.toml")
MIXED = (EXAMPLES / "mixed-fleet.toml").read_text(encoding="utf-8")
WORK = ("--tokens", "2M", "--seq-len", "256", "--global-batch", "48", "--date", "2026-11")
HALLS = """
[[pool]]
accelerator = "h100-sxm"
count = 8

[[pool]]
accelerator = "a100-sxm-80g"
count = 8
"""
HALL_WORK = ("--tokens", "10B", "--seq-len", "2048", "--global-batch", "64", "--date", "2026-11")


class Said(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def twofold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Any:
    """The command in this process, in a folder of its own, on a made-up calibrated machine."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TWOFOLD_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    fleet = calibrated_fleet()
    link = Link(name="gloo", latency_s=figure(1e-3, "s"), bandwidth_bytes_per_s=figure(5e8, "B/s"))
    pool = replace(fleet.pools[0], node=replace(fleet.pools[0].node, links=(link,)))
    write_overlay(replace(fleet, pools=(pool,)), default_overlay_path(), host={}, date="2026-11-24")

    def run(*words: str, fleet: str = MIXED, model: str = TINY, work: Any = WORK) -> Said:
        Path("fleet.toml").write_text(fleet, encoding="utf-8")
        with pytest.raises(SystemExit) as ended:
            main(["plan", model, "--fleet", "fleet.toml", *work, *words])
        out, err = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Said(ended.value.code, out, err)

    return run


def test_the_example_of_two_fast_nodes_and_a_slow_one(twofold: Any) -> None:
    said = twofold("-o", "plan.json")
    assert said.code == 0, said.err
    lines = said.out.splitlines()
    assert "0.75 of a core each" in said.out
    assert any(line.startswith("best ") and "uneven shares" in line for line in lines)
    assert any(line.startswith("even split ") for line in lines)
    assert any(line.startswith("best subset ") for line in lines)
    assert "mean/min" in lines[-3]
    assert "of the even split over all devices" in lines[-2]
    assert "of the best subset with equal shares" in lines[-2]
    assert lines[-1] == "next: twofold run plan.json"
    document = read_plan(Path("plan.json"))
    assert [share.pool for share in document.plan.shares] == ["fast", "slow"]
    assert sum(s.ranks * s.sequences for s in document.plan.shares) == 48
    assert document.workload.text == "stdlib"
    assert document.estimate is not None
    assert len(document.fleet.links) == 1


def test_one_json_document(twofold: Any) -> None:
    said = twofold("--json")
    assert said.code == 0, said.err
    told = json.loads(said.out)
    assert told["best"][0]["kind"] == "uneven shares"
    assert told["gain"]["even"]["value"] > told["gain"]["subset"]["value"] > 1.0
    assert told["ideal_gain"]["even"] > told["ideal_gain"]["subset"]
    assert {part["pool"] for part in told["best"][0]["pools"]} == {"fast", "slow"}
    assert told["document"]["plan"]["shares"]


def test_local_updates_are_written_where_they_are_asked_for(twofold: Any) -> None:
    slow = MIXED.replace("62.5e6", "0.5e6")
    said = twofold(fleet=slow)
    assert said.code == 0, said.err
    assert "--local-updates writes that plan" in said.out
    assert read_plan(Path("plan.json")).plan.local_steps == 0
    said = twofold("--local-updates", fleet=slow)
    assert said.code == 0, said.err
    assert "LOSSY" in said.out.splitlines()[-2]
    assert read_plan(Path("plan.json")).plan.local_steps > 0


def test_local_updates_that_are_worth_nothing_are_an_answer_of_no(twofold: Any) -> None:
    said = twofold("--local-updates")
    assert said.code == 1
    assert "quality for nothing" in said.err
    assert not Path("plan.json").exists()


def test_local_updates_over_one_pool_use_its_own_port(twofold: Any) -> None:
    one = """
[[pool]]
machine = "local"
count = 2
machine_figures.scale_out.bandwidth_bytes_per_s = 1e6
machine_figures.scale_out.latency_s = 2e-2
"""
    said = twofold("--local-updates", fleet=one)
    assert said.code == 0, said.err
    assert "every" in said.out
    assert read_plan(Path("plan.json")).plan.local_steps > 0


def test_fewer_sequences_than_devices_are_not_called_a_lack_of_memory(twofold: Any) -> None:
    work = ("--tokens", "100k", "--seq-len", "64", "--global-batch", "2", "--date", "2026-11")
    said = twofold(work=work)
    assert said.code == 0, said.err
    assert "even split over all devices has fewer sequences (2) than devices (3)" in said.out
    assert "fit" not in said.out


def test_the_next_step_is_one_that_works(twofold: Any) -> None:
    said = twofold(fleet=HALLS, model="llama-3.2-1b", work=HALL_WORK)
    assert said.out.splitlines()[-1].startswith("next: plan again with --text")
    said = twofold("--text", "stdlib", fleet=HALLS, model="llama-3.2-1b", work=HALL_WORK)
    assert said.out.splitlines()[-1].startswith("next: twofold run plan.json")


def test_pools_of_the_catalog(twofold: Any) -> None:
    said = twofold(fleet=HALLS, model="llama-3.2-1b", work=HALL_WORK)
    assert said.code == 0, said.err
    assert "uneven shares" in said.out
    assert "$" in said.out
    document = read_plan(Path("plan.json"))
    assert document.workload.text != "stdlib"
    assert len(document.fleet.pools) == 2
    assert document.estimate is not None


def test_explain_tells_the_estimate_that_was_made(
    twofold: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    twofold(fleet=HALLS, model="llama-3.2-1b", work=HALL_WORK)
    estimate = read_plan(Path("plan.json")).estimate
    assert estimate is not None

    def explained(*words: str) -> Said:
        with pytest.raises(SystemExit) as ended:
            main(["explain", "plan.json", *words])
        out, err = capsys.readouterr()
        return Said(int(ended.value.code or 0), out, err)

    said = explained()
    assert said.code == 0, said.err
    assert "16 devices (h100-sxm, a100-sxm-80g)" in said.out
    assert explained("--json").out.count(f"{estimate.outcome.step_time_s}") >= 1
    said = explained("--against", "plan.json")
    assert said.code == 2
    assert "not taken apart into causes" in said.err


def test_with_limits_pools_are_compared_one_by_one(twofold: Any) -> None:
    said = twofold("--objective", "cost", fleet=HALLS, model="llama-3.2-1b", work=HALL_WORK)
    assert said.code == 0, said.err
    assert "are compared one by one" in said.out


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("--objective", "cost"), "--objective is not for processes of this machine"),
        (("--pareto",), "--pareto is not for"),
        (("--budget", "5"), "--budget is not for"),
        (("--region", "westeurope"), "--region is not for"),
        (("--calibration", "x.json"), "--calibration is not for"),
        (("--precision", "fp9"), "fp9"),
        (("--memory-limit", "much"), "much"),
        (("--by", "2027-01", "--local-updates"), "--by is not for"),
    ],
)
def test_options_that_do_not_go_with_it(twofold: Any, words: tuple[str, ...], what: str) -> None:
    said = twofold(*words)
    assert (said.code, what in said.err) == (2, True), said.err
    assert not Path("plan.json").exists()


def test_local_updates_are_for_several_pools(twofold: Any) -> None:
    one = '[[pool]]\nmachine = "dgx-h100"\n'
    said = twofold("--local-updates", fleet=one, model="llama-3.2-1b", work=HALL_WORK)
    assert said.code == 2
    assert "--local-updates is for a plan over several pools" in said.err


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (MIXED.replace('between = ["fast", "slow"]', 'between = ["fast", "slwo"]'), "slwo"),
        (MIXED.replace("cpu_cores", "cpu_core"), "perhaps 'cpu_cores' is meant"),
        (MIXED.replace("0.25", "7"), "7 cores of the 2"),
        (MIXED.replace("62.5e6", "0"), "no rate"),
        (MIXED.replace("125e6", "0"), "a port of no rate"),
        (MIXED.replace('name = "slow"', 'name = "fast"'), "2 pools are named 'fast'"),
        (HALLS + MIXED.split("[[link]]")[0][MIXED.index("[[pool]]") :], "one fleet"),
        (HALLS.replace("count = 8", 'count = 8\nregion = "DEU"', 1), "what joins"),
        ("[[pool]\n", "TOML"),
    ],
)
def test_bad_fleet_files_are_told(twofold: Any, text: str, what: str) -> None:
    said = twofold(fleet=text)
    assert said.code == 2
    assert what in said.err
    assert "help:" in said.err


def test_nothing_fits(twofold: Any) -> None:
    said = twofold("--memory-limit", "1MB")
    assert said.code == 1
    assert "leanest needs" in said.err
