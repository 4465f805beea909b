"""What must hold for every plan on every pool, tried on random ones."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.search.fleet_problems import dense_model, expert_model, on_pool, problem
from twofold.outcome import Outcome
from twofold.perf.fleet import Problem, estimate_plans
from twofold.perf.plans import plan_at, table_of
from twofold.plan import Plan
from twofold.search import best_plans, check_fleet_plan
from twofold.search.fleet_space import make_space
from twofold.search.levers import make_levers
from twofold.units import format_quantity, parse_count

FEW = settings(deadline=None, max_examples=25)


@st.composite
def problems(draw: Any) -> Problem:
    make = draw(st.sampled_from([dense_model, expert_model]))
    heads = draw(st.sampled_from([4, 8, 12]))
    model = make(
        layers=draw(st.integers(2, 9)),
        hidden=128 * heads,
        heads=heads,
        kv_heads=draw(st.sampled_from([h for h in (1, 2, 4) if heads % h == 0])),
    )
    return problem(
        model,
        global_batch=draw(st.sampled_from([8, 12, 32])),
        seq_len=draw(st.sampled_from([512, 2048])),
        num_nodes=draw(st.sampled_from([1, 2, 3])),
        up_bytes_per_s=draw(st.floats(20e9, 900e9)),
        out_bytes_per_s=draw(st.floats(1e9, 100e9)),
    )


@st.composite
def cases(draw: Any) -> tuple[Problem, Plan]:
    """A random legal plan, whether it fits or not."""
    case = draw(problems())
    space = make_space(case, make_levers(case, precisions=("bf16", "fp8")))
    assume(space.num_rows > 0)
    layout = draw(st.integers(0, len(space.first) - 1))
    order = space.first[layout] + draw(st.integers(0, int(space.count[layout]) - 1))
    layers = draw(st.integers(0, case.model.layers))
    table = space.plans(*(np.array([value]) for value in (layout, order, layers)))
    return case, plan_at(table, 0, case.pool.name)


def outcome(case: Problem, plan: Plan) -> Outcome:
    return estimate_plans(case, [plan])[0].outcome


@given(cases())
@FEW
def test_every_plan_of_the_space_keeps_the_rules_and_survives_a_table(
    case: tuple[Problem, Plan],
) -> None:
    where, plan = case
    check_fleet_plan(where, plan)
    assert plan_at(table_of([plan]), 0, plan.pool) == plan


@given(cases())
@FEW
def test_parts_add_up_and_none_is_negative(case: tuple[Problem, Plan]) -> None:
    result = outcome(*case)
    for parts, total in (
        (result.step_parts_s, result.step_time_s),
        (result.memory_parts_bytes, result.peak_memory_bytes),
        (result.energy_parts_j, result.energy_j),
    ):
        assert sum(parts.values()) == pytest.approx(total)
        assert min(parts.values()) >= 0
    assert 0 < result.goodput_fraction <= 1


@given(cases())
@FEW
def test_no_step_is_faster_than_its_arithmetic(case: tuple[Problem, Plan]) -> None:
    """Model FLOP over the peak of the fastest format that is in use."""
    where, plan = case
    rates = where.pool.node.accelerator.flop_per_s
    peak = max(rates[name].value for name in {"bf16", plan.precision})
    devices = where.pool.num_devices
    assert outcome(where, plan).step_time_s >= where.flop_per_step / (devices * peak)


@given(cases(), st.sampled_from(["up_bytes_per_s", "out_bytes_per_s"]), st.floats(1.01, 30.0))
@FEW
def test_more_bandwidth_is_never_slower(
    case: tuple[Problem, Plan], link: str, factor: float
) -> None:
    where, plan = case
    rates = {
        "up_bytes_per_s": where.pool.node.links[0].bandwidth_bytes_per_s.value,
        "out_bytes_per_s": where.pool.node.links[1].bandwidth_bytes_per_s.value,
    }
    faster = rates | {link: factor * rates[link]}
    nodes = where.pool.num_nodes
    slow_s = outcome(on_pool(where, num_nodes=nodes, **rates), plan).step_time_s
    fast_s = outcome(on_pool(where, num_nodes=nodes, **faster), plan).step_time_s
    assert fast_s <= slow_s * (1 + 1e-12)


@given(cases(), st.sampled_from(["bf16", "fp8"]), st.floats(1.01, 10.0))
@FEW
def test_faster_products_are_never_slower(
    case: tuple[Problem, Plan], name: str, factor: float
) -> None:
    where, plan = case
    rates = dict(where.pool.node.accelerator.flop_per_s)
    faster = rates | {name: replace(rates[name], value=factor * rates[name].value)}
    links = {
        "up_bytes_per_s": where.pool.node.links[0].bandwidth_bytes_per_s.value,
        "out_bytes_per_s": where.pool.node.links[1].bandwidth_bytes_per_s.value,
    }
    nodes = where.pool.num_nodes
    slow_s, fast_s = (
        outcome(on_pool(where, num_nodes=nodes, flop_per_s=r, **links), plan).step_time_s
        for r in (rates, faster)
    )
    assert fast_s <= slow_s * (1 + 1e-12)


@given(problems())
@settings(deadline=None, max_examples=8)
def test_the_optimum_is_the_same_from_run_to_run_and_no_worse_with_more_memory(
    case: Problem,
) -> None:
    nodes = case.pool.num_nodes
    assume(make_space(case, make_levers(case)).num_rows > 0)
    tight = on_pool(case, num_nodes=nodes, memory_bytes=30e9)
    first, again = best_plans(tight, limit=1), best_plans(tight, limit=1)
    assert first.ranked == again.ranked
    roomy = best_plans(on_pool(case, num_nodes=nodes, memory_bytes=80e9), limit=1)
    assert roomy.ranked[0][1].outcome.time_s <= first.ranked[0][1].outcome.time_s


@given(st.integers(1, 999), st.sampled_from(["", "k", "M", "G", "T"]))
@FEW
def test_counts_round_trip(number: int, prefix: str) -> None:
    count = parse_count(f"{number}{prefix}")
    assert parse_count(format_quantity(float(count)).replace(" ", "")) == count
