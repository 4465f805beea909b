from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.machines import calibrated_fleet, curves_of, with_curves
from tests.workloads import gpt2_model, modern_model, train
from twofold.errors import InputError
from twofold.model import training_flop_per_token
from twofold.perf import estimate, estimate_columns
from twofold.perf.train import COMPILE_S, MEMORY_PARTS, PARTS
from twofold.plan import Plan

FLEET = calibrated_fleet()
PLAN = Plan(micro_batch=8, threads=1, optimizer_kernel="fused", orthogonal_precision="fp32")


def step_s(plan: Plan = PLAN, model=None, workload=None, fleet=FLEET) -> float:
    return estimate(model or gpt2_model(), workload or train(), fleet, plan).outcome.step_time_s


def test_parts_are_named_and_add_up() -> None:
    guess = estimate(modern_model(), train(optimizer="muon"), FLEET, PLAN)
    outcome = guess.outcome
    assert tuple(outcome.step_parts_s) == PARTS
    assert tuple(outcome.memory_parts_bytes) == MEMORY_PARTS
    assert min(outcome.step_parts_s.values()) > 0
    assert min(outcome.memory_parts_bytes.values()) >= 0
    assert guess.step_time_low_s < outcome.step_time_s < guess.step_time_high_s


def test_a_step_by_hand() -> None:
    """With free calls, free vector work and no narrowness only FLOP / rate is left."""
    fleet = calibrated_fleet(vector_s=0.0, call_s=0.0, sdpa_product_s=0.0)
    curves = curves_of(fleet)
    bare = replace(
        curves,
        gemm=tuple(
            replace(c, overhead_s=0.0, m_half=0.0, n_half=0.0, k_half=0.0) for c in curves.gemm
        ),
        attention=tuple(
            replace(c, forward=(0.0,) * 4, backward=(0.0,) * 4) for c in curves.attention
        ),
    )
    model, workload = gpt2_model(), train()
    attention_flop = 6 * model.layers * model.hidden * workload.seq_len
    weights_flop = training_flop_per_token(model, workload.seq_len) - attention_flop
    expected = weights_flop * workload.tokens_per_step / 8e10
    got = step_s(model=model, workload=workload, fleet=with_curves(fleet, bare))
    assert got == pytest.approx(expected)


def test_one_row_equals_its_column_among_many() -> None:
    model, workload = modern_model(), train(optimizer="muon")
    plans = [
        replace(PLAN, micro_batch=micro, threads=threads, precision=precision, recompute=recompute)
        for micro in (1, 2, 8)
        for threads in (1, 2)
        for precision in ("fp32", "bf16")
        for recompute in ("none", "full")
    ]
    columns = estimate_columns(model, workload, FLEET, plans)
    for index, plan in enumerate(plans):
        alone = estimate(model, workload, FLEET, plan).outcome
        assert columns.step_time_s[index] == pytest.approx(alone.step_time_s, rel=1e-9)
        assert columns.peak_memory_bytes[index] == pytest.approx(alone.peak_memory_bytes, rel=1e-9)
        assert columns.time_s[index] == pytest.approx(alone.time_s, rel=1e-9)


def test_recompute_costs_another_forward_of_the_blocks_and_saves_memory() -> None:
    full = replace(PLAN, recompute="full")
    assert 1.1 < step_s(full) / step_s() < 4 / 3
    peaks = [
        estimate(gpt2_model(layers=12), train(), FLEET, plan).outcome.memory_parts_bytes
        for plan in (PLAN, full)
    ]
    assert peaks[1]["activations"] < 0.2 * peaks[0]["activations"]


def test_accumulation_pays_overhead_and_saves_memory() -> None:
    small = replace(PLAN, micro_batch=1)
    assert step_s(small) > step_s()
    outcomes = [estimate(gpt2_model(), train(), FLEET, plan).outcome for plan in (PLAN, small)]
    assert outcomes[1].step_parts_s["overhead"] > 7 * outcomes[0].step_parts_s["overhead"]
    assert outcomes[1].peak_memory_bytes < outcomes[0].peak_memory_bytes


def test_muon_pays_for_its_iteration_by_its_steps() -> None:
    adamw, muon = train(), train(optimizer="muon")
    fewer = replace(muon, recipe=replace(muon.recipe, orthogonal_steps=1))
    third = replace(muon, recipe=replace(muon.recipe, orthogonal_steps=3))
    none, one, three, five = (step_s(workload=w) for w in (adamw, fewer, third, muon))
    assert none < one < three < five
    assert five - three == pytest.approx(three - one)


def test_bf16_keeps_copies_of_the_weights_and_halves_what_follows_products() -> None:
    half = replace(PLAN, precision="bf16")
    fp32, bf16 = (
        estimate(gpt2_model(), train(), FLEET, plan).outcome.memory_parts_bytes
        for plan in (PLAN, half)
    )
    assert bf16["weights"] > fp32["weights"]
    assert 0.5 * fp32["activations"] < bf16["activations"] < fp32["activations"]


def test_explicit_attention_keeps_the_scores() -> None:
    long = train(seq_len=1024, tokens=1024 * 80)
    sdpa, explicit = (
        estimate(gpt2_model(), long, FLEET, replace(PLAN, attention=kernel)).outcome
        for kernel in ("sdpa", "explicit")
    )
    scores_bytes = 4 * 4 * 8 * 2 * 1024**2
    extra = explicit.memory_parts_bytes["activations"] - sdpa.memory_parts_bytes["activations"]
    assert extra == pytest.approx(scores_bytes)


def test_compiling_is_charged_at_the_start_and_less_certain() -> None:
    eager, compiled = (
        estimate(gpt2_model(), train(), FLEET, replace(PLAN, compile=value))
        for value in (False, True)
    )
    assert compiled.outcome.startup_s - eager.outcome.startup_s == pytest.approx(
        COMPILE_S, rel=0.02
    )
    assert compiled.outcome.step_time_s < eager.outcome.step_time_s
    width = [e.step_time_high_s / e.step_time_low_s for e in (eager, compiled)]
    assert width[1] > width[0]


def test_energy_is_modelled_and_says_so() -> None:
    outcome = estimate(gpt2_model(), train(), FLEET, replace(PLAN, threads=2)).outcome
    assert outcome.energy_grade == "modelled"
    assert outcome.energy_j == pytest.approx(30.0 * outcome.time_s)


def test_a_missing_figure_is_named() -> None:
    curves = curves_of(FLEET)
    scalars = {k: v for k, v in curves.scalars.items() if k != "base_memory_bytes"}
    with pytest.raises(InputError, match="base_memory_bytes"):
        step_s(fleet=with_curves(FLEET, replace(curves, scalars=scalars)))


def test_plans_of_two_pools_are_not_mixed() -> None:
    with pytest.raises(InputError, match="cannot be estimated together"):
        estimate_columns(gpt2_model(), train(), FLEET, [PLAN, replace(PLAN, pool="other")])


def test_the_run_is_startup_and_steps() -> None:
    workload = train()
    outcome = estimate(gpt2_model(), workload, FLEET, PLAN).outcome
    assert outcome.time_s == pytest.approx(outcome.startup_s + 400 * outcome.step_time_s)
    assert np.isfinite(outcome.tokens_per_s)
