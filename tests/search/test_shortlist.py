"""The plan is found, not written: it changes with the machine, the memory and the sequence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.machines import calibrated_fleet
from tests.workloads import gpt2_model, modern_model, train
from twofold.calibrate import read_overlay, write_overlay
from twofold.document import read_json, write_json
from twofold.errors import InputError, NegativeAnswer
from twofold.fleet import Fleet
from twofold.model import Model
from twofold.perf import estimate
from twofold.plan import Plan
from twofold.search import legal_plans, shortlist
from twofold.workload import Train

FLEET = calibrated_fleet()


def best(
    model: Model, workload: Train, fleet: Fleet = FLEET, limit_bytes: float | None = None
) -> Plan:
    listed = shortlist(model, workload, fleet, memory_limit_bytes=limit_bytes)
    return listed.ranked[0][0]


def everything(model: Model, workload: Train, fleet: Fleet) -> list[tuple[float, float]]:
    """(run time, peak memory) of every legal plan, one at a time: the exhaustive truth."""
    plans, _ = legal_plans(workload, fleet.pools[0])
    outcomes = [estimate(model, workload, fleet, plan).outcome for plan in plans]
    return [(o.time_s, o.peak_memory_bytes or 0.0) for o in outcomes]


def test_the_first_is_the_best_of_the_whole_space() -> None:
    workload = train(global_batch=4)
    listed = shortlist(gpt2_model(), workload, FLEET)
    truth = everything(gpt2_model(), workload, FLEET)
    assert listed.num_considered == len(truth) == 2 * 2 * 2 * 2 * 2 * 3 * 3
    assert listed.ranked[0][1].outcome.time_s == pytest.approx(min(time for time, _ in truth))


def test_the_best_under_a_limit_is_the_best_of_those_that_fit() -> None:
    workload = train(global_batch=4)
    limit = 3.75e8
    listed = shortlist(gpt2_model(), workload, FLEET, memory_limit_bytes=limit)
    fitting = [time for time, peak in everything(gpt2_model(), workload, FLEET) if peak <= limit]
    assert 0 < len(fitting) == listed.num_fitting < listed.num_considered
    assert listed.ranked[0][1].outcome.time_s == pytest.approx(min(fitting))


def test_counts_add_up() -> None:
    listed = shortlist(
        gpt2_model(), train(), calibrated_fleet(compiler=False), memory_limit_bytes=3.7e8
    )
    assert listed.rejected["no compiler for torch.compile"] == listed.num_considered // 2
    assert listed.rejected["does not fit the memory"] > 0
    assert listed.num_fitting + sum(listed.rejected.values()) == listed.num_considered


def test_an_edited_overlay_turns_the_precision(tmp_path: Path) -> None:
    """bf16 is twice as fast on this machine; a person writes into the file that it is slow."""
    path = tmp_path / "calibration.json"
    write_overlay(FLEET, path, host={"name": "test"}, date="2026-11-24")
    assert best(gpt2_model(), train(), read_overlay(path).fleet).precision == "bf16"
    written = read_json(path, dict)
    for curve in written["fleet"]["pools"][0]["node"]["accelerator"]["curves"]["gemm"]:
        if curve["precision"] == "bf16":
            curve["flop_per_s"]["value"] /= 100
    write_json(path, written)
    assert best(gpt2_model(), train(), read_overlay(path).fleet).precision == "fp32"


def test_attention_follows_what_was_measured() -> None:
    workload = train(seq_len=256, tokens=256 * 800)
    sdpa = calibrated_fleet(explicit_product_s=1e-9)
    explicit = calibrated_fleet(sdpa_product_s=1e-9)
    assert best(gpt2_model(), workload, sdpa).attention == "sdpa"
    assert best(gpt2_model(), workload, explicit).attention == "explicit"


def test_a_memory_limit_of_1_gb_shrinks_the_micro_batch_or_recomputes() -> None:
    model = gpt2_model(layers=8, hidden=512, heads=8, kv_heads=8, ffn=2048)
    workload = train(seq_len=512, global_batch=16, tokens=512 * 1600)
    free = best(model, workload)
    tight = shortlist(model, workload, FLEET, memory_limit_bytes=1e9).ranked[0]
    free_peak = estimate(model, workload, FLEET, free).outcome.peak_memory_bytes
    assert free_peak is not None
    assert free_peak > 1e9
    assert tight[1].outcome.peak_memory_bytes is not None
    assert tight[1].outcome.peak_memory_bytes <= 1e9
    assert (tight[0].micro_batch, tight[0].recompute) != (free.micro_batch, free.recompute)


def test_a_long_sequence_under_a_limit_gives_up_explicit_attention() -> None:
    """Explicit attention is faster here but keeps seq x seq scores; sdpa does not."""
    fleet = calibrated_fleet(explicit_product_s=0.5e-10)
    short = train(seq_len=128, global_batch=8)
    long = train(seq_len=4096, global_batch=8, tokens=4096 * 80)
    assert best(gpt2_model(), short, fleet, 6e8).attention == "explicit"
    assert best(gpt2_model(), long, fleet, 6e8).attention == "sdpa"


def test_compiling_pays_only_in_a_long_run() -> None:
    short = train(tokens=8 * 128 * 20)
    long = replace(short, tokens=8 * 128 * 100_000)
    assert best(gpt2_model(), short).compile is False
    assert best(gpt2_model(), long).compile is True


def test_finals_differ_in_levers_that_a_model_can_get_wrong() -> None:
    listed = shortlist(modern_model(), train(optimizer="muon"), FLEET, limit=4)
    plans = [plan for plan, _ in listed.ranked]
    kinds = {(p.attention, p.precision, p.threads, p.micro_batch, p.compile) for p in plans}
    assert len(plans) == len(kinds) == 4
    assert len({p.attention for p in plans}) == 2
    times = [guess.outcome.time_s for _, guess in listed.ranked]
    assert times == sorted(times)


def test_the_limit_is_kept_and_one_is_enough() -> None:
    assert len(shortlist(gpt2_model(), train(), FLEET, limit=1).ranked) == 1
    assert len(shortlist(gpt2_model(), train(), FLEET, limit=7).ranked) == 7


def test_the_same_question_has_the_same_answer() -> None:
    first, second = (shortlist(gpt2_model(), train(), FLEET) for _ in range(2))
    assert first == second


def test_nothing_fits_and_the_nearest_change_is_named() -> None:
    workload = train(seq_len=4096, global_batch=2, tokens=4096 * 20)
    with pytest.raises(NegativeAnswer, match="none of") as caught:
        shortlist(gpt2_model(), workload, FLEET, memory_limit_bytes=3.6e8)
    assert "shorten seq_len to" in (caught.value.help or "")
    assert caught.value.exit_code == 1
    length = int((caught.value.help or "").rsplit(" ", 1)[1])
    shorter = train(seq_len=length, global_batch=2, tokens=length * 20)
    assert shortlist(gpt2_model(), shorter, FLEET, memory_limit_bytes=3.6e8).num_fitting > 0


def test_a_model_too_large_for_the_machine_says_so() -> None:
    with pytest.raises(NegativeAnswer, match="leanest") as caught:
        shortlist(gpt2_model(), train(), FLEET, memory_limit_bytes=1e8)
    assert "smaller" in (caught.value.help or "")


def test_a_users_network_has_no_prediction() -> None:
    with pytest.raises(InputError, match="not known"):
        shortlist(gpt2_model(entry="mine:network"), train(), FLEET)
