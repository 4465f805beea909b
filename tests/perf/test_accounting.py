"""What is counted of a plan, by hand: parameters, bytes, update, machines, FLOP."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.fleets import figure
from tests.search.fleet_problems import dense_model, expert_model, problem
from twofold.fleet import Link, MemoryTier
from twofold.model import Model, inference_flop_per_token, num_parameters, operator_table
from twofold.model.table import forward_flop
from twofold.perf.carbon import LIFE_YEARS
from twofold.perf.cluster import order_columns
from twofold.perf.columns import ModelColumns, PlanColumns
from twofold.perf.fleet import Problem, estimate_plans, price_table
from twofold.perf.flop import counted_flop_per_step
from twofold.perf.footprint import StateColumns, state_columns
from twofold.perf.layout import layout_columns
from twofold.perf.parameters import model_columns
from twofold.perf.plans import layer_keys, plan_columns, table_of
from twofold.perf.speeds import node_rates
from twofold.perf.work import Work, layer_work
from twofold.plan import Plan
from twofold.search.fleet_space import make_space
from twofold.search.levers import make_levers
from twofold.search.sweep import price_space, priced_chunks

HOST_LINK = 32e9
RATES = {name: figure(rate, "FLOP/s") for name, rate in (("bf16", 3e14), ("fp32", 6e13))}


def a_plan(**levers: Any) -> Plan:
    fields: dict[str, Any] = {"micro_batch": 1, "precision": "bf16"}
    return Plan(pool="made-up", **(fields | levers))


def columns(model: Model, *plans: Plan) -> tuple[PlanColumns, ModelColumns]:
    table = table_of(plans)
    return plan_columns(table, 64, model.layers), model_columns(operator_table(model), len(plans))


def state(model: Model, **levers: Any) -> StateColumns:
    return state_columns(*columns(model, a_plan(**levers)))


def work(model: Model, **levers: Any) -> Work:
    keys = layer_keys(table_of([a_plan(**levers)]), 512)
    return layer_work(operator_table(model), keys, 512.0)


def optimizer_s(case: Problem, **levers: Any) -> float:
    plan, model = columns(case.model, a_plan(**levers))
    rates = node_rates(case.pool.node, "bf16", 24.0, case.fit)
    return float(layout_columns(plan, model, rates).optimizer_s[0])


def test_tied_embeddings_are_held_once_by_one_stage_and_by_both_of_two() -> None:
    model = dense_model(tied_embeddings=True)
    table = model.vocab * model.hidden
    assert state(model).weights[:, 0] == pytest.approx(2.0 * num_parameters(model))
    both = state(model, pipeline_degree=2)
    assert both.weights.sum() == pytest.approx(2.0 * (num_parameters(model) + table))
    assert both.optimizer.sum() == pytest.approx(12.0 * (num_parameters(model) + table))


def test_experts_are_gathered_in_the_part_that_a_rank_holds() -> None:
    model = expert_model(vocab=512)
    _, held = columns(model, a_plan())
    layer = (held.dense / 2 + held.experts / (4 * 2)) / model.layers
    gathered = state(
        model,
        data_degree=4,
        tensor_degree=2,
        expert_degree=4,
        expert_tensor_degree=2,
        zero_stage=3,
    ).gathered
    assert gathered == pytest.approx(2.0 * 2.0 * layer)


def test_an_embedding_larger_than_a_layer_is_gathered_too() -> None:
    model = dense_model(vocab=256_000)
    _, held = columns(model, a_plan())
    gathered = state(model, data_degree=8, zero_stage=3).gathered
    embedding = model.vocab * model.hidden
    assert gathered == pytest.approx(2.0 * (held.dense / model.layers + embedding), rel=1e-4)
    assert state(model, data_degree=8, zero_stage=2).gathered == 0.0


def test_32_bit_layers_move_twice_the_bytes_and_the_same_logits() -> None:
    levers = {"tensor_degree": 2, "context_degree": 2, "expert_degree": 2}
    model = expert_model()
    half, full = (work(model, precision=p, **levers) for p in ("bf16", "fp32"))
    for name in ("gemm_bytes", "tensor_bytes", "context_bytes", "expert_bytes", "boundary_bytes"):
        np.testing.assert_allclose(getattr(full, name), 2.0 * getattr(half, name), err_msg=name)
    np.testing.assert_allclose(full.saved_bytes[:2], 2.0 * half.saved_bytes[:2])
    assert half.saved_bytes[2] < full.saved_bytes[2] < 2.0 * half.saved_bytes[2]
    tensor = work(model, precision="tf32", **levers)
    np.testing.assert_array_equal(tensor.saved_bytes, full.saved_bytes)


def test_explicit_scores_stream_13_and_19_bytes_in_16_bits_and_keep_5() -> None:
    model = dense_model()
    scores = 512.0 * 512.0 * model.heads * model.layers
    for precision, width in (("bf16", 2.0), ("fp32", 4.0)):
        plain = work(model, precision=precision)
        explicit = work(model, precision=precision, attention="explicit")
        more = (explicit.stream_bytes - plain.stream_bytes)[1, :2, 0]
        assert more == pytest.approx([(6 * width + 1) * scores, (9 * width + 1) * scores])
        kept = (explicit.saved_bytes - plain.saved_bytes)[1]
        assert kept == pytest.approx((2 * width + 1) * scores)


def test_32_bit_training_keeps_16_bytes_a_parameter_and_mixed_18() -> None:
    model = dense_model()
    for precision, each in (("bf16", (2, 4, 12)), ("fp32", (4, 4, 8)), ("tf32", (4, 4, 8))):
        held = state(model, precision=precision)
        parts = [part[0, 0] for part in (held.weights, held.gradients, held.optimizer)]
        assert parts == pytest.approx([size * num_parameters(model) for size in each])


def test_an_update_streams_30_bytes_a_parameter_and_28_in_32_bits() -> None:
    case = problem()
    mixed = optimizer_s(case, precision="bf16")
    assert optimizer_s(case, precision="fp32") == pytest.approx(mixed * 28 / 30)


def test_hybrid_sharding_updates_the_part_that_its_memory_holds() -> None:
    case = problem()
    whole = optimizer_s(case, data_degree=8, zero_stage=1)
    assert optimizer_s(case, data_degree=8, zero_stage=1, shard_degree=2) == pytest.approx(
        4 * whole
    )
    held = state(case.model, data_degree=8, zero_stage=1, shard_degree=2).optimizer[0, 0]
    assert held == pytest.approx(12.0 * num_parameters(case.model) / 2)


def with_host(case: Problem, **memory: float) -> Problem:
    link = Link(
        name="host", latency_s=figure(1e-5, "s"), bandwidth_bytes_per_s=figure(HOST_LINK, "B/s")
    )
    node = case.pool.node
    tier = MemoryTier(
        name="host",
        usable_bytes=figure(memory["usable_bytes"], "B"),
        bandwidth_bytes_per_s=(
            figure(memory["bytes_per_s"], "B/s") if "bytes_per_s" in memory else None
        ),
    )
    node = replace(node, links=(*node.links, link), host_memory=(tier,))
    return replace(case, pool=replace(case.pool, node=node))


@pytest.mark.parametrize(("memory", "each"), [({}, 25e9), ({"bytes_per_s": 400e9}, 50e9)])
def test_offloaded_updates_cross_the_link_and_stream_in_the_host(
    memory: dict[str, float], each: float
) -> None:
    case = with_host(problem(num_nodes=1), usable_bytes=1e12, **memory)
    plan = a_plan(data_degree=8, offload="optimizer", zero_stage=1, micro_batch=8)
    [estimate] = estimate_plans(case, [plan])
    held = num_parameters(case.model) / 8
    expected_s = held * (6.0 / HOST_LINK + 30.0 / each)
    assert estimate.outcome.step_parts_s["optimizer"] == pytest.approx(expected_s)
    wide = replace(plan, precision="fp32")
    rates = problem(num_nodes=1, flop_per_s=RATES)
    [estimate] = estimate_plans(with_host(rates, usable_bytes=1e12, **memory), [wide])
    expected_s = held * (8.0 / HOST_LINK + 28.0 / each)
    assert estimate.outcome.step_parts_s["optimizer"] == pytest.approx(expected_s)


def test_offloaded_state_must_fit_four_fifths_of_the_host() -> None:
    needed = 12.0 * num_parameters(dense_model())
    plan = a_plan(data_degree=8, offload="optimizer", zero_stage=1)
    for usable, fits in ((needed / 0.81, False), (needed / 0.79, True)):
        case = with_host(problem(num_nodes=1), usable_bytes=usable)
        priced = price_table(case, table_of([plan, replace(plan, offload="none")]))
        assert priced.fits.tolist() == [fits, True]
        assert priced.footprint.host_bytes == pytest.approx([needed / 8, 0.0])
        told = [one.basis for one in estimate_plans(case, [plan])]
        assert ("does not fit the host memory" in told[0]) != fits


def test_unused_devices_of_a_rented_machine_are_paid_for() -> None:
    case = problem(num_nodes=1)
    node = replace(
        case.pool.node,
        power_overhead_w=figure(2000.0, "W"),
        embodied_kgco2e=figure(1000.0, "kgCO2e"),
    )
    case = replace(case, pool=replace(case.pool, node=node))
    for devices in (2, 8):
        [estimate] = estimate_plans(case, [a_plan(data_degree=devices)])
        outcome = estimate.outcome
        parts, time_s = outcome.energy_parts_j, outcome.time_s
        assert parts["static"] == pytest.approx(8 * 60.0 * time_s)
        assert parts["node"] == pytest.approx(2000.0 * time_s)
        assert outcome.energy_j is not None
        assert outcome.carbon_kgco2e is not None
        it_j = sum(parts.values()) - parts["facility"]
        assert parts["facility"] == pytest.approx(0.1 * it_j)
        made = (8 * 150.0 + 1000.0) * time_s / (LIFE_YEARS * 8760 * 3600.0)
        operated = outcome.energy_j / 3.6e6 * 0.4
        assert outcome.carbon_kgco2e == pytest.approx(operated + made)


def test_energy_without_a_pue_is_told_to_be_of_the_machines_alone() -> None:
    case = problem(num_nodes=1)
    bare = replace(case, pool=replace(case.pool, pue=None))
    plan = a_plan(data_degree=8)
    [known], [unknown] = estimate_plans(case, [plan]), estimate_plans(bare, [plan])
    assert "PUE" not in known.basis
    assert "PUE is not known" in unknown.basis
    assert known.outcome.energy_j is not None
    assert unknown.outcome.energy_j == pytest.approx(known.outcome.energy_j / 1.1)


def test_a_search_over_widths_prices_rows_as_a_table_does() -> None:
    case = problem(expert_model(layers=4), num_nodes=1, global_batch=8, flop_per_s=RATES)
    case = with_host(case, usable_bytes=20e9)
    space = make_space(case, make_levers(case, precisions=("bf16", "fp32")))
    seen = 0
    for chunk, _, _ in priced_chunks(price_space(case, space), 40e9):
        assert chunk is not None
        alone = price_table(case, space.plans(chunk.layout, chunk.order, chunk.recomputed_layers))
        assert alone.fits.all()
        seen += len(np.unique(space.orders["precision"][chunk.order]))
        np.testing.assert_allclose(chunk.columns.time_s, alone.time_s, rtol=1e-9)
        for name, part in alone.footprint.parts_bytes.items():
            np.testing.assert_allclose(chunk.columns.footprint.parts_bytes[name], part, rtol=1e-9)
    assert seen >= 2


def test_hardware_flop_counts_the_blocks_again_and_the_head_not() -> None:
    model = dense_model(vocab=256_000)
    head = sum(
        forward_flop(row, 512, 512) for row in operator_table(model) if row.segment == "output"
    )
    forward = inference_flop_per_token(model, 512) * 512
    ours = counted_flop_per_step(model, 512, 4)
    hardware = counted_flop_per_step(model, 512, 4, "hardware FLOP")
    assert ours == pytest.approx(4 * 3 * forward)
    assert hardware == pytest.approx(4 * (4 * forward - head))


def test_full_attention_counts_masked_pairs() -> None:
    model = dense_model()
    attention = 4.0 * 512 * 512 * model.hidden * model.layers
    causal, full = (
        counted_flop_per_step(model, 512, 1, words) for words in ("", "full (non-causal)")
    )
    assert full - causal == pytest.approx(3 * attention / 2)


def test_a_checkpoint_is_14_bytes_a_parameter_and_12_in_32_bits() -> None:
    model = dense_model(tied_embeddings=True)
    for precision, each in (("bf16", 14.0), ("fp32", 12.0)):
        written = state(model, data_degree=2, pipeline_degree=2, precision=precision).checkpoint
        assert written == pytest.approx(each * num_parameters(model) / 4)


def test_gradients_of_a_further_micro_batch_are_added_unless_the_products_do_it() -> None:
    case = problem(dense_model())
    plan, model = columns(case.model, a_plan())
    rates = node_rates(case.pool.node, "bf16", 24.0, case.fit)
    apart = layout_columns(plan, model, rates)
    fused = layout_columns(replace(plan, apart=0.0 * plan.apart), model, rates)
    assert fused.accumulate_s[0] == 0.0
    assert apart.accumulate_s[0] / apart.optimizer_s[0] == pytest.approx(10.0 / 30.0)


def test_ends_of_a_pipeline_have_a_layer_less_where_layers_do_not_divide() -> None:
    order = order_columns(*columns(dense_model(layers=10), a_plan(pipeline_degree=4)))
    assert 10 * order.slowest_share[0] == pytest.approx(3.0)
    assert 10 * order.end_shares[:, 0] == pytest.approx([2.0, 2.0])
