"""Planning for fleets as a person types it: tables, claims, JSON, and every way to get it wrong."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from twofold.cli import main
from twofold.document import read_plan

MODEL = "llama-3.2-1b"
FLEET = "dgx-h100:1"
WORK = ("--tokens", "10B", "--seq-len", "2048", "--global-batch", "64")
DATE = ("--date", "2026-11")


class Said(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def twofold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Any:
    """The command in this process, in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> Said:
        with pytest.raises(SystemExit) as ended:
            main(list(words))
        out, err = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Said(ended.value.code, out, err)

    return run


def plan(twofold: Any, *words: str, fleet: str = FLEET) -> Said:
    said = twofold("plan", MODEL, "--fleet", fleet, *WORK, *DATE, *words)
    assert isinstance(said, Said)
    return said


def test_the_best_plans_stand_beside_two_baselines_and_the_claim_is_last(twofold: Any) -> None:
    said = plan(twofold, "--region", "FRA")
    assert said.code == 0, said.err
    lines = said.out.splitlines()
    assert "8 devices" in lines[1]
    table = {line.split()[0]: line for line in reversed(lines) if line.split()}
    assert {"best", "newcomer", "well-known"} <= set(table)
    for head in ("devices", "dollars", "MWh", "tCO2e", "MFU", "bound by", "memory of usable"):
        assert head in said.out
    assert "plans considered" in said.out
    assert "basis: " in said.out
    assert "than the newcomer's" in lines[-2]
    assert "the well-known one" in lines[-2]
    assert "(predicted; 90 % interval)" in lines[-2]
    assert lines[-1] == "next: twofold explain plan.json"


def test_the_plan_is_a_document_that_holds_all_it_rests_on(twofold: Any, tmp_path: Path) -> None:
    plan(twofold)
    document = read_plan(tmp_path / "plan.json")
    assert document.model.name == MODEL
    assert document.fleet.pools[0].num_devices == 8
    assert document.date == "2026-11"
    assert document.workload.text == "unspecified"
    assert document.estimate is not None
    assert document.estimate.outcome.cost_usd is not None


def test_planning_needs_no_framework_and_starts_light(tmp_path: Path) -> None:
    code = (
        "import json, sys, time\n"
        "import twofold.cli.fleet_planning\n"
        "started = time.process_time()\n"
        "try: twofold.cli.main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "heavy = [m for m in ('torch', 'scipy', 'twofold.report.page') if m in sys.modules]\n"
        "print(json.dumps({'cpu_s': started, 'heavy': heavy}), file=sys.stderr)\n"
    )
    words = ("plan", MODEL, "--fleet", FLEET, *WORK, *DATE, "-o", str(tmp_path / "plan.json"))
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=True
    )
    said = json.loads(done.stderr.splitlines()[-1])
    assert said["heavy"] == []
    assert said["cpu_s"] < 2.0


def table_of_plans(text: str) -> list[str]:
    """From the head to the blank line below."""
    lines = text.splitlines()
    start = next(place for place, line in enumerate(lines) if line.startswith("plan  "))
    return lines[start : lines.index("", start)]


@pytest.mark.parametrize("objective", ["time", "carbon"])
def test_a_narrow_terminal_has_a_narrower_table_with_whole_numbers(
    twofold: Any, monkeypatch: pytest.MonkeyPatch, objective: str
) -> None:
    words = ("--region", "westeurope", "--objective", objective)
    wide = table_of_plans(plan(twofold, *words).out)
    assert max(map(len, wide)) > 100
    monkeypatch.setenv("COLUMNS", "100")
    *narrow, remark = table_of_plans(plan(twofold, *words).out)
    assert max(map(len, narrow)) <= 100
    assert "--json has all" in remark
    heads = set(re.split(r"  +", narrow[0]))
    assert {"time", "90 % interval", "dollars", "MFU"} <= heads
    assert ("tCO2e" in heads) == (objective == "carbon")
    for few, all_ in zip(narrow[1:], wide[1:], strict=True):
        there = set(re.split(r"  +", all_))
        assert all(
            cell in there or any(cell in other for other in there) or cell.endswith("%")
            for cell in re.split(r"  +", few)
        )


def test_every_table_is_narrower_in_a_narrow_terminal(
    twofold: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    varied = plan(twofold, "--vary", "model=llama-3.2-3b").out
    by = ("--date", "2027-01-01", "--by", "2027-01-11", "--seq-len", "2048", "--global-batch", "64")
    reach = twofold("plan", MODEL, "--fleet", FLEET, *by, "--vary", "model=llama-3.2-3b").out
    given = twofold("estimate", MODEL, "--fleet", FLEET, *WORK, *DATE, "--plan", "tp=2").out
    for said in (plan(twofold, "--pareto").out, varied, reach, given):
        table = [line for line in said.splitlines() if "  " in line and "note:" not in line]
        assert max(map(len, table)) <= 100, said
    assert "llama-3.2-3b  bf16 dp=8" in varied
    assert "llama-3.2-3b  bf16 dp=8" in reach


def test_json_has_everything_in_si_units(twofold: Any) -> None:
    said = plan(twofold, "--json").json
    [fleet] = said["fleets"]
    best, baselines = fleet["best"][0], fleet["baselines"]
    assert [one["role"] for one in baselines] == ["newcomer", "well-known"]
    assert all(best["time_s"]["value"] <= one["time_s"]["value"] for one in baselines)
    assert best["time_s"]["low"] < best["time_s"]["value"] < best["time_s"]["high"]
    assert best["peak_memory_bytes"] <= best["usable_memory_bytes"]
    assert sum(best["time_fractions"].values()) == pytest.approx(1.0)
    assert 0 < best["mfu_fraction"] < 1
    considered = fleet["num_fitting"] + sum(fleet["rejected"].values())
    assert considered == fleet["num_considered"]


def test_the_same_question_has_the_same_answer(twofold: Any) -> None:
    assert plan(twofold, "--json").out == plan(twofold, "--json").out


def test_what_nobody_knows_is_unknown_and_not_zero(twofold: Any) -> None:
    said = plan(twofold, fleet="maia-100:8")
    assert said.code == 0, said.err
    best = next(line for line in said.out.splitlines() if line.startswith("best"))
    assert "unknown" in best
    assert "$" not in best
    assert (
        plan(twofold, "--json", fleet="maia-100:8").json["fleets"][0]["best"][0]["cost_usd"] is None
    )


def test_a_network_that_is_no_transformer_is_planned_by_the_same_code(twofold: Any) -> None:
    said = twofold(
        "plan", "resnet-50", "--fleet", "dgx-a100:1", "--tokens", "115M", "--global-batch", "1024"
    )
    assert said.code == 0, said.err
    assert "115 M samples" in said.out


def test_a_narrow_format_is_told_to_need_a_proof_of_the_loss(twofold: Any) -> None:
    said = plan(twofold, "--precision", "fp8")
    assert said.code == 0, said.err
    assert "the best plan multiplies in fp8" in said.out


def test_how_much_of_the_time_rests_on_published_runs(twofold: Any) -> None:
    assert "coverage: 100% of the time" in plan(twofold).out
    unseen = plan(twofold, "--json", fleet="l4:8").json["fleets"][0]["best"][0]
    assert sum(unseen["unmeasured_fractions"].values()) > 0.5


def test_fleets_are_compared_in_one_table(twofold: Any) -> None:
    said = plan(twofold, "--fleet", "dgx-a100:1", "--fleet", "gpt-fleet.toml")
    assert said.code == 2
    said = plan(twofold, "--fleet", "dgx-a100:1")
    assert said.code == 0, said.err
    claim = said.out.splitlines()[-2]
    assert claim.startswith("dgx-a100:1 is 0.")
    assert "dgx-h100:1 for this work" in claim
    assert sum(line.startswith("dgx-a100:1 best") for line in said.out.splitlines()) == 2


def test_a_fleet_on_which_nothing_fits_stands_beside_one_on_which_it_does(twofold: Any) -> None:
    said = twofold(*on("llama-3.1-8b", FLEET, "--fleet", "t4:1"))
    assert said.code == 0, said.err
    assert "t4:1: none of" in said.out


def test_a_fleet_file_with_a_price_of_ones_own(twofold: Any, tmp_path: Path) -> None:
    (tmp_path / "lab.toml").write_text(
        '[[pool]]\nmachine = "dgx-h100"\nusd_per_machine_hour = 8.0\ngrid_kgco2e_per_kwh = 0.1\n'
    )
    best = plan(twofold, "--json", fleet="lab.toml").json["fleets"][0]["best"][0]
    assert best["cost_usd"] == pytest.approx(8.0 * best["time_s"]["value"] / 3600, rel=1e-6)
    assert best["carbon_kgco2e"] > 0


@pytest.mark.parametrize("objective", ["cost", "energy", "carbon"])
def test_other_objectives(twofold: Any, objective: str) -> None:
    said = plan(twofold, "--objective", objective, "--region", "FRA")
    assert said.code == 0, said.err
    word = {"cost": "cheaper", "energy": "less energy", "carbon": "less carbon"}[objective]
    assert f"{word} than" in said.out.splitlines()[-2]


def test_models_at_equal_predicted_loss(twofold: Any) -> None:
    said = plan(twofold, "--vary", "model=llama-3.2-3b,gpt2")
    assert said.code == 0, said.err
    lines = said.out.splitlines()
    assert lines[-3].startswith("llama-3.2-3b against llama-3.2-1b at equal predicted loss: ")
    rows = plan(twofold, "--vary", "model=llama-3.2-3b,llama-3.2-1b", "--json").json["variants"]
    first, larger, same = (row["tokens"]["value"] for row in rows)
    assert larger < first == same == 10e9


def test_the_front_has_no_plan_that_another_beats(twofold: Any) -> None:
    said = plan(twofold, "--pareto")
    assert said.code == 0, said.err
    assert "that none beats in both time and cost" in said.out
    assert said.out.count("coverage: 100% of the time rests on published runs") == 1
    assert "note: dgx-h100: assumed or announced: " in said.out
    front = plan(twofold, "--pareto", "--json").json["front"]
    times = [one["time_s"]["value"] for one in front]
    costs = [one["cost_usd"] for one in front]
    assert times == sorted(times)
    assert costs == sorted(costs, reverse=True)


def test_how_far_by_a_date(twofold: Any) -> None:
    words = ("--date", "2027-01-01", "--by", "2027-01-11")
    base = ("plan", MODEL, "--fleet", FLEET, "--seq-len", "2048", "--global-batch", "64")
    said = twofold(*base, *words)
    assert said.code == 0, said.err
    assert "tokens by 2027-01-11 (predicted)" in said.out
    assert "coverage: 100% of the time rests on published runs" in said.out
    twice = twofold(*base, "--date", "2027-01-01", "--by", "2027-01-21", "--json").json
    once = twofold(*base, *words, "--json").json
    ratio = twice["reach"][0]["tokens"] / once["reach"][0]["tokens"]
    assert ratio == pytest.approx(2.0, rel=1e-3)
    said = twofold(*base, *words, "--vary", "model=llama-3.2-3b", "--tokens", "900T")
    assert said.code == 1
    assert "none gets 900,000,000,000,000 tokens" in said.out


def test_limits_choose_and_refuse(twofold: Any) -> None:
    fastest = plan(twofold, "--json").json["fleets"][0]["best"][0]
    hours = fastest["time_s"]["value"] / 3600
    assert plan(twofold, "--deadline", f"{hours * 1.1:.3f}h").code == 0
    for words, told in (
        (("--deadline", "1s"), "the fastest plan takes"),
        (("--budget", "$1"), "the cheapest plan costs"),
    ):
        said = plan(twofold, *words)
        assert said.code == 1
        assert told in said.err
        assert "help:" in said.err


def test_an_estimate_of_a_given_plan(twofold: Any, tmp_path: Path) -> None:
    words = ("estimate", MODEL, "--fleet", FLEET, *WORK, *DATE)
    said = twofold(*words, "--plan", "tp=2 recompute=full", "-o", "given.json")
    assert said.code == 0, said.err
    assert "bf16 dp=4 tp=2 mb=1 zero=1 sp recompute=full" in said.out
    assert read_plan(tmp_path / "given.json").plan.data_degree == 4
    (tmp_path / "given.toml").write_text('[plan]\ntp = 2\nrecompute = "full"\n')
    file = twofold(*words, "--plan", "given.toml", "--json").json
    assert file == twofold(*words, "--plan", "tp=2 recompute=full", "--json").json
    assert sum(file["outcome"]["step_parts_s"].values()) == pytest.approx(file["step_time_s"])


def test_the_words_of_a_plan_are_read_as_they_are_printed(twofold: Any) -> None:
    best = plan(twofold, "--json").json["fleets"][0]["best"][0]
    words = ("estimate", MODEL, "--fleet", FLEET, *WORK, *DATE, "--plan", best["plan"], "--json")
    assert twofold(*words).json["step_time_s"] == best["step_time_s"]


def test_a_given_plan_that_does_not_fit_is_the_answer_no(twofold: Any) -> None:
    said = twofold("estimate", "llama-3.1-70b", "--fleet", FLEET, *WORK, *DATE, "--plan", "zero=0")
    assert said.code == 1
    assert "does not fit: " in said.out
    assert "TOO BIG" in said.out


def test_a_plan_without_a_text_is_not_run(twofold: Any) -> None:
    plan(twofold)
    said = twofold("run", "plan.json")
    assert said.code == 2
    assert "names no text" in said.err


def test_explain_a_plan_and_two(twofold: Any) -> None:
    plan(twofold, "-o", "a.json")
    plan(twofold, "-o", "b.json", fleet="dgx-a100:1")
    said = twofold("explain", "a.json")
    assert said.code == 0, said.err
    assert "step time" in said.out
    said = twofold("explain", "a.json", "--against", "b.json")
    assert said.code == 0, said.err
    assert "chip rate" in said.out


def test_inspect_models_and_fleets(twofold: Any) -> None:
    assert "1,235,814,400" in twofold("inspect", MODEL).out
    assert twofold("inspect", MODEL, "--json").json["parameters"] == 1_235_814_400
    said = twofold("inspect", "azure-nd-h200-v5:2").out
    assert "16 devices" in said
    assert "usd_per_node_hour" in said
    assert twofold("inspect", FLEET, "--json").json["pools"][0]["num_nodes"] == 1


def test_the_catalog_is_listed_and_shown_with_reasons(twofold: Any) -> None:
    assert MODEL in twofold("catalog", "list", "models").out
    assert "h100-sxm" in twofold("catalog", "list").out
    assert {row["kind"] for row in twofold("catalog", "list", "machines", "--json").json} == {
        "node"
    }
    said = twofold("catalog", "show", "h100", "--why")
    assert said.code == 0, said.err
    assert "datasheet" in said.out
    assert "accelerators/h100-sxm.toml" in said.out
    assert twofold("catalog", "show", "h100", "--json").json["id"] == "h100-sxm"


def on(model: str, fleet: str, *words: str) -> tuple[str, ...]:
    return ("plan", model, "--fleet", fleet, *WORK, *words)


def given(levers: str, model: str = MODEL, fleet: str = FLEET) -> tuple[str, ...]:
    return ("estimate", model, "--fleet", fleet, *WORK, "--plan", levers)


def write_rows(tmp_path: Path) -> None:
    """Two steps as somebody measured them."""
    (tmp_path / "rows.csv").write_text(
        "id,source_id,model_name,arch,layers,hidden,heads,kv_heads,ffn,vocab,seq_len,accelerator,"
        "accel_count,precision,tp,pp,dp,micro_batch,global_batch,step_time_s,date\n"
        "a,us,Llama-3.1-8B,dense,32,4096,32,8,14336,128256,8192,H100-SXM-80GB,"
        "64,BF16,1,1,64,1,128,3.5,2026-05\n"
        "b,us,Llama-3.1-8B,dense,32,4096,32,8,14336,128256,8192,H100-SXM-80GB,"
        "64,BF16,2,1,32,1,128,3.7,2026-05\n"
    )


def test_predictions_are_scored_on_measured_rows(twofold: Any, tmp_path: Path) -> None:
    write_rows(tmp_path)
    said = twofold("validate", "rows.csv", "--json")
    assert said.code == 0, said.err
    assert said.json["rows"] == 2
    assert "2 rows" in twofold("validate", "rows.csv").out


def test_measured_steps_narrow_the_interval(twofold: Any, tmp_path: Path) -> None:
    write_rows(tmp_path)
    said = twofold("calibrate", "--from", "rows.csv", "-o", "ours.toml")
    assert said.code == 0, said.err
    shipped = plan(twofold, "--json").json["fleets"][0]["best"][0]["time_s"]
    ours = plan(twofold, "--json", "--calibration", "ours.toml").json
    assert any("ours.toml" in note for note in ours["notes"])
    narrowed = ours["fleets"][0]["best"][0]["time_s"]
    assert narrowed["high"] / narrowed["low"] < shipped["high"] / shipped["low"]


def finished_run(folder: Path, step_times_s: list[float]) -> None:
    """What a run leaves beside its plan."""
    rows: list[dict[str, Any]] = [{"event": "start", "startup_s": 20.0, "num_parameters": 1}]
    rows += [
        {"event": "step", "tokens": n, "time_s": float(n), "loss": 2.0, "step_time_s": seconds}
        for n, seconds in enumerate(step_times_s, start=1)
    ]
    end = {"tokens": 1, "num_steps": len(step_times_s), "train_s": sum(step_times_s), "cpu_s": 1.0}
    rows.append({"event": "end", "peak_memory_bytes": None, **end})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_finished_run_is_a_measured_step(twofold: Any, tmp_path: Path) -> None:
    """The median step, 1.2 times what was predicted, moves the prediction most of the way."""
    folder = tmp_path / "run"
    folder.mkdir()
    first = plan(twofold, "--json", "-o", "run/plan.json").json["fleets"][0]["best"][0]
    finished_run(folder, [90.0, *[1.2 * first["step_time_s"]] * 3])
    said = twofold("calibrate", "--from", "run", "-o", "by-run.toml")
    assert said.code == 0, said.err
    assert "1 measured run; this site takes 1.1" in said.out
    ours = plan(twofold, "--json", "--calibration", "by-run.toml").json["fleets"][0]["best"][0]
    assert 1.15 < ours["step_time_s"] / first["step_time_s"] < 1.2
    assert ours["time_s"]["high"] / ours["time_s"]["low"] < 1.5
    finished_run(folder, [])
    assert twofold("calibrate", "--from", "run").code == 2


def test_a_run_that_has_not_ended_or_has_no_plan_is_refused(twofold: Any, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    said = twofold("calibrate", "--from", "run")
    assert said.code == 2
    assert "plan.json" in said.err
    plan(twofold, "-o", "run/plan.json")
    said = twofold("calibrate", "--from", "run")
    assert said.code != 0
    assert "left no metrics" in said.err


BAD: list[tuple[tuple[str, ...], str]] = [
    (on("lama-3.2-1b", FLEET), "'llama-3.2-1b'"),
    (on(MODEL, "dgx-h10:1"), "'dgx-h100'"),
    (on(MODEL, "mai-1:8"), "a language model, not a chip"),
    (on(MODEL, FLEET, "--region", "westeurop"), "'azure:westeurope'"),
    (on(MODEL, FLEET, "--objective", "coost"), "perhaps 'cost' is meant"),
    (on(MODEL, FLEET, "--objective", "carbon"), "--region westeurope"),
    (on(MODEL, "maia-100:8", "--objective", "cost"), "the price of 'maia-100"),
    (on(MODEL, "maia-100:8", "--budget", "1M"), "the price of 'maia-100"),
    (on(MODEL, FLEET, "--term", "sopt"), "perhaps 'spot' is meant"),
    (on(MODEL, FLEET, "--precision", "bf61"), "perhaps 'bf16' is meant"),
    (on(MODEL, "a100:8", "--precision", "fp8"), "has no fp8 matrix rate"),
    (on(MODEL, "maia-200:8", "--precision", "bf16"), "has no bf16 matrix rate"),
    (on(MODEL, "dgx-h100:0"), "a count of at least 1"),
    (on(MODEL, "dgx-h100:many"), "a count of at least 1"),
    (on(MODEL, "dgx-h100:-4"), "a count of at least 1"),
    (on(MODEL, "dgx-h100:2.5"), "a count of at least 1"),
    (on(MODEL, "dgx-h100:10000000000"), "at most 10,000,000"),
    (on(MODEL, ""), "there is no machine"),
    (on(MODEL, "bad.toml"), "not TOML"),
    (on(MODEL, "bad.json"), "not JSON"),
    (on(MODEL, "nan.toml"), "not a finite, non-negative number"),
    (on(MODEL, "negative.toml"), "not a finite, non-negative number"),
    (on(MODEL, "missing.toml"), "cannot be read"),
    (on("bad.toml", FLEET), "not TOML"),
    (on("bad.json", FLEET), "not JSON"),
    (on("shape.toml", FLEET), "layers is -1"),
    (on("nan-shape.toml", FLEET), "finite number"),
    (on(MODEL, FLEET, "--calibration", "bad.toml"), "not TOML"),
    (on(MODEL, FLEET, "--deadline", "3 fortnights"), "not a duration"),
    (on(MODEL, FLEET, "--budget", "-5"), "not a count"),
    (on(MODEL, FLEET, "--budget", "nan"), "not a count"),
    (on(MODEL, FLEET, "--power-cap", "5"), "not a power"),
    (on(MODEL, FLEET, "--memory-limit", "1"), "not bytes"),
    (on(MODEL, FLEET, "--date", "2026-13"), "not a month or day"),
    (on(MODEL, FLEET, "--date", "2026-11", "--by", "2020-01-01"), "not after the start"),
    (on(MODEL, FLEET, "--by", "2027-02-31"), "is no day"),
    (on(MODEL, FLEET, "--by", "2027-02-01", "--budget", "1M"), "does not go with --by"),
    (on(MODEL, FLEET, "--pareto", "--deadline", "1d"), "does not go with --pareto"),
    (on(MODEL, FLEET, "--vary", "modl=x"), "is not model=NAME,NAME"),
    (on(MODEL, FLEET, "--vary", "model=nope"), "there is no model 'nope'"),
    (on(MODEL, FLEET, "--vary", "model=resnet-50"), "no scaling law"),
    (("plan", MODEL, "--fleet", FLEET), "--tokens"),
    (("plan", MODEL, "--fleet", FLEET, "--tokens", "1T"), "--global-batch"),
    (("plan", MODEL, "--fleet", FLEET, "--tokens", "nan", "--global-batch", "8"), "not a count"),
    (("plan", MODEL, "--fleet", FLEET, "--tokens", "-5", "--global-batch", "8"), "not a count"),
    (("plan", MODEL, "--fleet", FLEET, "--tokens", "1e400", "--global-batch", "8"), "not a count"),
    (("plan", MODEL, "--fleet", FLEET, "--tokens", "9", "--global-batch", "8"), "one step"),
    (("plan", MODEL, "--fleet", FLEET, "--tokens", "1T", "--global-batch", "0"), "1 sequence"),
    (on("gpt2", FLEET, "--seq-len", "4096"), "1024 learned positions"),
    (("plan", "shape.toml", "--objective", "cost"), "--objective goes with --fleet"),
    (given("tp=6"), "tensor degree 6 does not divide the 32 attention heads"),
    (given("cp=3"), "do not divide the 8 devices"),
    (given("tp=0"), "at least 1"),
    (given("tp=x"), "a whole number"),
    (given("tp"), "is not WORD=VALUE"),
    (given("tq=8"), "perhaps 'tp' is meant"),
    (given("tp=2 tp=4"), "said twice"),
    (given("dp=4"), "for 4 devices"),
    (given("mb=1000"), "does not divide the 64 sequences"),
    (given("pp=8 tp=1 vpp=4"), "more than the 16 layers"),
    (given("ep=4"), "is dense"),
    (given("schedule=1f2b"), "perhaps '1f1b' is meant"),
    (given("layers=3"), "recompute=full"),
    (given("shard=3"), "does not divide"),
    (given("tp=8", "resnet-50"), "has no sequences"),
    (
        ("estimate", "resnet-50", "--fleet", FLEET, *WORK[:2], *WORK[4:], "--plan", "tp=8"),
        "no transformer",
    ),
    (given("fp8", fleet="a100:8"), "has no fp8 matrix rate"),
    (given("tp=2", fleet="maia-200:8"), "has no bf16 matrix rate"),
    (given("bad.toml"), "not TOML"),
    (given("levers.toml"), "tensor_degree is nan"),
    (given(""), "no levers"),
    (("inspect", "nope"), "neither a model nor a machine"),
    (("inspect", MODEL, "--seq-len", "0"), "at least 1 token"),
    (("inspect", "bad.json"), "not JSON"),
    (("catalog", "list", "frobs"), "is none of"),
    (("catalog", "show", "h1000"), "'h100"),
    (("explain", "bad.json"), "not JSON"),
    (("explain", "missing.json"), "cannot be read"),
    (("validate", "missing.csv"), "cannot be read"),
    (("validate", "empty.csv"), "none of the columns"),
    (("calibrate", "--from", "empty.csv"), "none of the columns"),
]


@pytest.mark.parametrize(("words", "told"), BAD, ids=[" ".join(words[:9]) for words, _ in BAD])
def test_bad_input_is_told_with_help_and_exit_code_2(
    twofold: Any, tmp_path: Path, words: tuple[str, ...], told: str
) -> None:
    shape = "hidden = 8\nheads = 2\nkv_heads = 1\nffn = 16\nvocab = 256\nmax_seq_len = 4096\n"
    pool = '[[pool]]\nmachine = "dgx-h100"\n'
    for name, text in {
        "bad.toml": "name = [",
        "bad.json": "{",
        "empty.csv": "",
        "nan.toml": f"{pool}pue = nan\n",
        "negative.toml": f"{pool}usd_per_machine_hour = -3.0\n",
        "shape.toml": f"[model]\nlayers = -1\n{shape}",
        "nan-shape.toml": f"[model]\nlayers = nan\n{shape}",
        "levers.toml": "tp = nan\n",
    }.items():
        (tmp_path / name).write_text(text)
    said = twofold(*words)
    assert said.code == 2, said.err
    assert told in said.err
    assert said.err.startswith("error: ")
    assert "help: " in said.err
    assert "Traceback" not in said.err
    assert said.out == ""


def test_a_fleet_too_small_is_the_answer_no_with_the_nearest_change(twofold: Any) -> None:
    said = twofold(*on("llama-3.1-70b", "azure-nd-a100-v4:1"))
    assert said.code == 1
    assert "does not fit the memory" in said.err
    assert "help: use 16 devices" in said.err
    assert said.out == ""


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--deadline", "-3d"),
        ("--budget", "nan"),
        ("--budget", "-5"),
        ("--power-cap", "5"),
        ("--memory-limit", "1"),
        ("--date", "2026-13"),
        ("--by", "soon"),
    ],
)
def test_a_bad_value_is_told_with_its_option(twofold: Any, option: str, value: str) -> None:
    said = plan(twofold, option, value)
    assert said.code == 2
    assert f"   at: {option}" in said.err


def test_a_deadline_that_is_missed_is_told_with_machines_that_meet_it(twofold: Any) -> None:
    fastest = plan(twofold, "--json").json["fleets"][0]["best"][0]
    deadline = f"{fastest['time_s']['value'] / 2.5 / 3600:.3f}h"
    said = plan(twofold, "--deadline", deadline)
    assert said.code == 1
    machines = re.search(r"use (\d+) machines", said.err)
    assert machines is not None
    assert plan(twofold, "--deadline", deadline, fleet=f"dgx-h100:{machines[1]}").code == 0


def test_every_fleet_says_why_it_has_no_plan(twofold: Any) -> None:
    said = plan(twofold, "--fleet", "dgx-a100:1", "--deadline", "1s")
    assert said.code == 1
    assert "dgx-h100:1: the fastest plan takes" in said.err
    assert "dgx-a100:1: the fastest plan takes" in said.err


def test_a_fleet_without_a_figure_is_a_line_beside_others(twofold: Any) -> None:
    said = plan(twofold, "--fleet", "maia-100:8", "--objective", "cost")
    assert said.code == 0, said.err
    assert "maia-100:8: plans cannot be compared by cost: the price" in said.out
    said = plan(twofold, "--fleet", "a100:8", "--precision", "fp8")
    assert said.code == 0, said.err
    assert "a100:8: 'a100" in said.out


def test_a_memory_limit_is_kept_by_all_and_shown(twofold: Any) -> None:
    said = plan(twofold, "--memory-limit", "30GB", "--json").json["fleets"][0]
    for option in (*said["best"], *said["baselines"]):
        assert option["usable_memory_bytes"] == 30e9
        assert option["peak_memory_bytes"] <= 30e9
    assert "of 27.9 GiB" in plan(twofold, "--memory-limit", "30GB").out
    assert "so it limits nothing there" in plan(twofold, "--memory-limit", "300GB").out


def test_what_else_there_is_to_know_stands_in_notes(twofold: Any) -> None:
    said = plan(twofold)
    assert "possible on h100-sxm: --precision bf16,fp8" in said.out
    assert "a device-hour (" in said.out
    assert "possible on" not in plan(twofold, "--precision", "bf16").out
    awkward = plan(twofold, fleet="dgx-h100:11")
    assert "machines: 3 stay idle" in awkward.out or "machines: 1 stay idle" in awkward.out


def test_the_same_plan_has_no_factor(twofold: Any) -> None:
    claim = plan(twofold).out.splitlines()[-2]
    assert "faster than the newcomer's, the same plan as the well-known one (" in claim


def test_models_by_a_date_are_told_once(twofold: Any) -> None:
    base = ("plan", MODEL, "--fleet", FLEET, "--seq-len", "1024", "--global-batch", "64")
    words = ("--date", "2027-01-01", "--by", "2027-01-11", "--vary", f"model={MODEL},gpt2")
    said = twofold(*base, *words, "--json").json
    assert [one["model"] for one in said["reach"]] == [MODEL, "gpt2"]
