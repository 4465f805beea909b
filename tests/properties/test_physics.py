"""What must hold for every model, plan and machine, tried on random ones."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.machines import calibrated_fleet, curves_of, with_curves
from tests.workloads import gpt2_model, modern_model, train
from twofold.fleet import Fleet
from twofold.model import Model, num_parameters, operator_table, training_flop_per_token
from twofold.outcome import Outcome
from twofold.perf import estimate
from twofold.perf.roofs import roof_flop_per_s, roofline_rows
from twofold.plan import Plan
from twofold.workload import Train

settings.register_profile("physics", deadline=None, max_examples=60)
settings.load_profile("physics")


@st.composite
def models(draw: Any) -> Model:
    heads = draw(st.sampled_from([1, 2, 4, 8]))
    make = draw(st.sampled_from([gpt2_model, modern_model]))
    return make(
        layers=draw(st.integers(2, 16)),
        hidden=heads * draw(st.sampled_from([16, 32, 64, 128])),
        heads=heads,
        kv_heads=draw(st.sampled_from([h for h in (1, 2, 4, 8) if heads % h == 0])),
        ffn=draw(st.integers(1, 64)) * 32,
        vocab=draw(st.integers(16, 5000)),
    )


@st.composite
def workloads(draw: Any) -> Train:
    seq_len = draw(st.sampled_from([32, 100, 128, 512, 2048]))
    global_batch = draw(st.integers(1, 24))
    steps = draw(st.integers(1, 1000))
    return train(
        seq_len=seq_len,
        global_batch=global_batch,
        tokens=seq_len * global_batch * steps,
        optimizer=draw(st.sampled_from(["adamw", "muon"])),
    )


@st.composite
def plans(draw: Any, workload: Train) -> Plan:
    batch = workload.recipe.global_batch
    return Plan(
        micro_batch=draw(st.sampled_from([d for d in range(1, batch + 1) if batch % d == 0])),
        precision=draw(st.sampled_from(["fp32", "bf16"])),
        attention=draw(st.sampled_from(["sdpa", "explicit"])),
        recompute=draw(st.sampled_from(["none", "full"])),
        compile=draw(st.booleans()),
        threads=draw(st.sampled_from([1, 2])),
        optimizer_kernel=draw(st.sampled_from(["loop", "foreach", "fused"])),
        orthogonal_precision=draw(st.sampled_from(["fp32", "bf16"])),
    )


@st.composite
def cases(draw: Any) -> tuple[Model, Train, Plan]:
    workload = draw(workloads())
    return draw(models()), workload, draw(plans(workload))


def outcome(model: Model, workload: Train, plan: Plan, fleet: Fleet) -> Outcome:
    return estimate(model, workload, fleet, plan).outcome


@given(cases())
def test_parts_add_up_and_none_is_negative(case: tuple[Model, Train, Plan]) -> None:
    result = outcome(*case, calibrated_fleet())
    assert sum(result.step_parts_s.values()) == pytest.approx(result.step_time_s)
    assert sum(result.memory_parts_bytes.values()) == pytest.approx(result.peak_memory_bytes)
    assert min(result.step_parts_s.values()) >= 0
    assert min(result.memory_parts_bytes.values()) >= 0


@given(cases())
def test_no_prediction_is_above_the_roof(case: tuple[Model, Train, Plan]) -> None:
    model, workload, plan = case
    fleet = calibrated_fleet()
    result = outcome(model, workload, plan, fleet)
    assert result.flop_per_s is not None
    assert result.flop_per_s <= roof_flop_per_s(fleet)[plan.precision]
    for row in roofline_rows(model, workload, fleet, plan):
        if row["name"] in ("linear layers", "head"):
            assert row["flop"] / row["time_s"] <= roof_flop_per_s(fleet)[plan.precision]


@given(cases(), st.floats(1.01, 10.0))
def test_faster_products_are_never_slower(case: tuple[Model, Train, Plan], factor: float) -> None:
    slow = outcome(*case, calibrated_fleet())
    fast = outcome(
        *case, calibrated_fleet(fp32_flop_per_s=8e10 * factor, bf16_flop_per_s=1.6e11 * factor)
    )
    assert fast.step_time_s < slow.step_time_s


@given(cases(), st.floats(1.01, 10.0))
def test_faster_vector_work_attention_and_calls_are_never_slower(
    case: tuple[Model, Train, Plan], factor: float
) -> None:
    slow = outcome(*case, calibrated_fleet())
    for change in (
        {"vector_s": 2e-9 / factor},
        {"call_s": 5e-6 / factor},
        {"sdpa_product_s": 1e-10 / factor, "explicit_product_s": 1.5e-10 / factor},
    ):
        assert outcome(*case, calibrated_fleet(**change)).step_time_s < slow.step_time_s


@given(cases())
def test_longer_sequences_at_equal_tokens_are_never_faster(
    case: tuple[Model, Train, Plan],
) -> None:
    """The same step in half as many sequences of twice the length: only attention grows."""
    model, workload, plan = case
    seq_len, optimizer = workload.seq_len, workload.recipe.optimizer
    two, one = (
        train(seq_len=length, global_batch=batch, tokens=8 * seq_len, optimizer=optimizer)
        for length, batch in ((seq_len, 2), (2 * seq_len, 1))
    )
    short = outcome(model, two, replace(plan, micro_batch=2), calibrated_fleet())
    long = outcome(model, one, replace(plan, micro_batch=1), calibrated_fleet())
    assert long.step_time_s > short.step_time_s
    assert long.step_parts_s["attention"] > short.step_parts_s["attention"]


@given(cases())
def test_more_tokens_in_a_step_take_more_time_and_memory(case: tuple[Model, Train, Plan]) -> None:
    model, workload, plan = case
    batch = workload.recipe.global_batch
    more = replace(
        workload,
        tokens=2 * workload.tokens,
        recipe=replace(workload.recipe, global_batch=2 * batch),
    )
    fleet = calibrated_fleet()
    less = outcome(model, workload, plan, fleet)
    same_micro = outcome(model, more, plan, fleet)
    large_micro = outcome(model, more, replace(plan, micro_batch=2 * plan.micro_batch), fleet)
    assert same_micro.step_time_s > less.step_time_s
    assert large_micro.step_time_s > less.step_time_s
    assert large_micro.peak_memory_bytes > less.peak_memory_bytes


@given(cases())
def test_more_memory_bandwidth_is_never_slower(case: tuple[Model, Train, Plan]) -> None:
    """The optimizer's and the vector curves carry the bandwidth; their points scale with it."""
    fleet = calibrated_fleet()
    curves = curves_of(fleet)
    faster = replace(
        curves,
        ops=tuple(
            replace(
                c,
                forward_s=tuple(0.5 * s for s in c.forward_s),
                backward_s=tuple(0.5 * s for s in c.backward_s),
            )
            for c in curves.ops
        ),
    )
    assert (
        outcome(*case, with_curves(fleet, faster)).step_time_s < outcome(*case, fleet).step_time_s
    )


@given(models(), st.integers(1, 4096))
def test_accounting_is_one(model: Model, seq: int) -> None:
    rows = operator_table(model)
    weights = sum(
        row.n.coefficient * row.k.coefficient * row.repeat for row in rows if row.kind == "gemm"
    )
    attention = 6 * model.layers * model.heads * model.head_size * seq
    assert training_flop_per_token(model, seq) == pytest.approx(6 * weights + attention)
    assert num_parameters(model) >= weights - model.hidden * model.vocab
