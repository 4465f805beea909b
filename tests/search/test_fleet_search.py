"""The search against plain loops over every plan, and what it says when there is none."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise, product
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from tests.search.fleet_problems import dense_model, expert_model, on_pool, problem
from twofold import __version__
from twofold.document import make_document, read_plan, write_plan
from twofold.errors import InputError, NegativeAnswer
from twofold.fleet import Fleet
from twofold.model import Experts
from twofold.outcome import Estimate
from twofold.perf.fleet import FleetColumns, Problem, estimate_plans, price_table
from twofold.perf.plans import table_of
from twofold.plan import Plan
from twofold.search import (
    baseline_plans,
    best_plans,
    by_date,
    check_fleet_plan,
    largest_model_by_date,
    pareto,
)
from twofold.search.levers import device_counts
from twofold.search.objective import Limits, Objective, value_of
from twofold.search.sweep import TOO_BIG
from twofold.units import parse_bytes

CASES = {
    "dense": lambda: problem(dense_model(), num_nodes=1, global_batch=8, memory_bytes=12e9),
    "experts": lambda: problem(
        expert_model(layers=6), num_nodes=1, global_batch=4, memory_bytes=16e9
    ),
    "uneven": lambda: problem(dense_model(layers=7), num_nodes=1, global_batch=12),
}


def divisors(number: int) -> list[int]:
    return [d for d in range(1, number + 1) if number % d == 0]


def every_plan(case: Problem) -> tuple[list[Plan], int]:
    """Legal plans by plain loops, nothing recomputed, and how many combinations were looked at,
    legal or not, each counted without recomputation and with all of it."""
    model, seq, batch = case.model, case.workload.seq_len, case.workload.recipe.global_batch
    devices = case.pool.num_devices
    legal, looked_at = [], 0
    for p, c, t in product(divisors(devices), repeat=3):
        if devices % (p * c * t):
            continue
        d = devices // (p * c * t)
        experts = divisors(model.experts.count) if model.experts else [1]
        inner = [1] if t == 1 or not model.experts else [1, t]
        near = max(g for g in divisors(d * c) if g <= max(8 // t, 1))
        groups = [0, near] if 1 < near < d * c else [0]
        zeros = [(0, 0), *product((1, 2, 3), groups)] if d * c > 1 else [(0, 0)]
        layers = -(-model.layers // p)
        schedules: list[Any] = [("1f1b", 1)]
        if p > 1:
            schedules += [("gpipe", 1), ("zb-h1", 1)]
            schedules += [("interleaved", v) for v in divisors(layers)[1:]]
        micros = [2**k for k in range(20) if 2**k <= batch]
        for e, et, (z, s), (schedule, v), sp, m, offload in product(
            experts, inner, zeros, schedules, (False, True) if t > 1 else (False,), micros,
            ("none", "optimizer"),
        ):  # fmt: skip
            looked_at += 2
            if model.heads % t or (model.kv_heads % t and t % model.kv_heads) or model.ffn % t:
                continue
            if p > model.layers or (c > 1 and seq % (2 * c)) or batch % d:
                continue
            if d * c * t % (e * et) or (model.experts and model.experts.ffn % et):
                continue
            share = batch // d
            if share % m or (sp and seq % (t * c)) or (z >= 2 and p > 1):
                continue
            if (schedule == "interleaved" and share // m % p) or (z == 2 and share != m):
                continue
            legal.append(
                Plan(
                    pool=case.pool.name,
                    data_degree=d,
                    tensor_degree=t,
                    context_degree=c,
                    pipeline_degree=p,
                    expert_degree=e,
                    expert_tensor_degree=et,
                    sequence_parallel=sp,
                    zero_stage=z,
                    shard_degree=s,
                    schedule=schedule,
                    virtual_stages=v,
                    micro_batch=m,
                    precision="bf16",
                    offload=offload,
                    optimizer_kernel="fused",
                )
            )
    return legal, looked_at


def peak_bytes(estimate: Estimate) -> float:
    assert estimate.outcome.peak_memory_bytes is not None
    return estimate.outcome.peak_memory_bytes


def exhaustive(case: Problem) -> tuple[FleetColumns, list[int], int]:
    """Columns of every plan under every number of recomputed layers; which of them are those of
    the space that fit, the least recomputation found by trying all; and how many were looked at.
    """
    legal, looked_at = every_plan(case)
    tried, starts = [], []
    for plan in legal:
        starts.append(len(tried))
        stage = -(-case.model.layers // plan.pipeline_degree)
        tried.append(plan)
        for layers in (*range(1, stage), None):
            tried.append(replace(plan, recompute="full", recompute_layers=layers))
    columns = price_table(case, table_of(tried))
    fits = columns.fits
    fitting = []
    for start, stop in pairwise([*starts, len(tried)]):
        some = [row for row in range(start + 1, stop - 1) if fits[row]]
        if fits[start]:
            fitting.append(start)
        elif some:
            fitting.append(some[0])
            looked_at += 1
        if fits[stop - 1]:
            fitting.append(stop - 1)
    return columns, fitting, looked_at


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_the_best_of_the_search_is_the_best_of_all_plans(name: str) -> None:
    case = CASES[name]()
    columns, fitting, looked_at = exhaustive(case)
    assert fitting
    for objective in get_args(Objective):
        found = best_plans(case, objective=objective, fewer_devices=False, limit=1)
        assert found.num_considered == looked_at
        assert found.num_fitting == len(fitting)
        least = value_of(columns, objective)[fitting].min()
        [(plan, estimate)] = found.ranked
        [again] = estimate_plans(case, [plan])
        assert again == estimate
        key = {"time": "time_s", "cost": "cost_usd", "energy": "energy_j"}
        assert getattr(estimate.outcome, key.get(objective, "carbon_kgco2e")) == pytest.approx(
            least, rel=1e-12
        )


@pytest.mark.parametrize("name", CASES)
def test_counts_add_up_and_plans_differ_in_kind(name: str) -> None:
    found = best_plans(CASES[name](), limit=4)
    assert found.num_considered == found.num_fitting + sum(found.rejected.values())
    times = [estimate.outcome.time_s for _, estimate in found.ranked]
    assert times == sorted(times)
    kinds = {
        (p.tensor_degree, p.context_degree, p.pipeline_degree, p.expert_degree,
         p.expert_tensor_degree, p.zero_stage == 3)
        for p, _ in found.ranked
    }  # fmt: skip
    assert len(kinds) == len(found.ranked)
    assert all(peak_bytes(e) <= found.memory_limit_bytes for _, e in found.ranked)


def test_the_search_is_deterministic() -> None:
    first, second = (best_plans(CASES["experts"]()) for _ in range(2))
    assert first.ranked == second.ranked
    assert first.rejected == second.rejected


def test_lossy_precisions_are_tried_only_when_named() -> None:
    case = problem(num_nodes=1)
    assert {p.precision for p, _ in best_plans(case, limit=20).ranked} == {"bf16"}
    named = best_plans(case, precisions=("bf16", "fp8"))
    assert named.ranked[0][0].precision == "fp8"
    assert named.num_considered > best_plans(case).num_considered


def test_a_precision_the_device_lacks_is_counted_or_refused() -> None:
    case = problem(num_nodes=1)
    found = best_plans(case, precisions=("bf16", "nvfp4"))
    assert found.rejected["precision not known on the device"] > 0
    assert found.num_considered == found.num_fitting + sum(found.rejected.values())
    with pytest.raises(InputError, match="nvfp4"):
        best_plans(case, precisions=("nvfp4",))


def test_limits_are_kept_and_counted() -> None:
    case = problem(num_nodes=1)
    free = best_plans(case)
    middle = float(np.median([e.outcome.time_s for _, e in best_plans(case, limit=50).ranked]))
    limited = best_plans(case, objective="energy", fewer_devices=False, deadline_s=middle)
    assert limited.rejected["ends after the deadline"] > 0
    assert all(e.outcome.time_s <= middle for _, e in limited.ranked)
    assert limited.num_considered == free.num_considered
    with pytest.raises(NegativeAnswer, match="budget"):
        best_plans(case, budget_usd=1e-3)
    with pytest.raises(NegativeAnswer, match="deadline") as caught:
        best_plans(case, deadline_s=0.8 * free.ranked[0][1].outcome.time_s)
    assert "use 16 devices" in (caught.value.help or "")
    assert "allow fp8, which is lossy" in (caught.value.help or "")


def test_fewer_devices_are_tried_where_speed_is_not_all() -> None:
    case = problem(num_nodes=4)
    assert best_plans(case, objective="time").ranked[0][0].data_degree >= 1
    whole = best_plans(case, objective="cost", fewer_devices=False)
    halves = best_plans(case, objective="cost")
    assert halves.num_considered > whole.num_considered
    cheapest, kept = halves.ranked[0][1].outcome, whole.ranked[0][1].outcome
    assert (cheapest.cost_usd or 0.0) <= (kept.cost_usd or 0.0)


def test_a_missing_price_is_named() -> None:
    case = problem(num_nodes=1)
    unpriced = replace(case, pool=replace(case.pool, usd_per_node_hour=None))
    with pytest.raises(InputError, match="price"):
        best_plans(unpriced, objective="cost")
    assert best_plans(unpriced).ranked[0][1].outcome.cost_usd is None


def test_nothing_fits_names_the_nearest_change() -> None:
    case = problem(num_nodes=1, memory_bytes=3.3e9)
    with pytest.raises(NegativeAnswer) as caught:
        best_plans(case)
    assert caught.value.exit_code == 1
    assert TOO_BIG in caught.value.what
    more = re.search(r"use (\d+) devices", caught.value.help or "")
    assert more is not None
    nodes = int(more[1]) // 8
    assert best_plans(on_pool(case, num_nodes=nodes, memory_bytes=3.3e9)).ranked
    with pytest.raises(NegativeAnswer):
        best_plans(on_pool(case, num_nodes=nodes // 2, memory_bytes=3.3e9))


def test_nothing_fits_names_the_memory_that_would_do() -> None:
    """Framework and logits alone are more than the limit, however many devices there are."""
    case = problem(num_nodes=1)
    with pytest.raises(NegativeAnswer) as caught:
        best_plans(case, memory_limit_bytes=3.1e9)
    assert caught.value.what.index(TOO_BIG) < caught.value.what.index("divide")
    enough = re.search(r"allow ([\d.]+ GiB) of each device", caught.value.help or "")
    assert enough is not None
    limit_bytes = parse_bytes(enough[1])
    assert best_plans(case, memory_limit_bytes=limit_bytes).ranked
    with pytest.raises(NegativeAnswer):
        best_plans(case, memory_limit_bytes=0.97 * limit_bytes)
    with pytest.raises(NegativeAnswer) as caught:
        best_plans(problem(num_nodes=1, memory_bytes=3.1e9))
    assert f"use devices of {enough[1]}" in (caught.value.help or "")


def test_more_machines_need_a_network_that_is_known() -> None:
    with pytest.raises(NegativeAnswer) as caught:
        best_plans(problem(num_nodes=1, memory_bytes=3.3e9, scale_out=False))
    assert "give scale_out.bandwidth_bytes_per_s" in (caught.value.help or "")


def test_a_batch_that_nothing_divides_asks_for_a_larger_one() -> None:
    """7 heads and an odd batch: nothing multiplies to 64 devices."""
    model = dense_model(heads=7, kv_heads=7, hidden=7 * 64, ffn=7 * 128, layers=3)
    case = problem(model, num_nodes=8, global_batch=3, seq_len=66)
    with pytest.raises(NegativeAnswer) as caught:
        best_plans(case, fewer_devices=False)
    assert "raise the global batch to 32" in (caught.value.help or "")
    assert best_plans(case).ranked[0][0].data_degree == 3


def test_a_pool_without_a_scale_out_network_is_refused() -> None:
    """By a search and for a single plan, with the figure's name; inside a machine none is used."""
    apart = problem(num_nodes=2, scale_out=False)
    with pytest.raises(InputError, match="the scale-out bandwidth of 'made-up-node' is unknown"):
        best_plans(apart)
    plan = Plan(pool=apart.pool.name, data_degree=16, micro_batch=1, precision="bf16")
    with pytest.raises(InputError, match="the scale-out bandwidth of 'made-up-node' is unknown"):
        check_fleet_plan(apart, plan)
    check_fleet_plan(apart, replace(plan, data_degree=8))
    assert best_plans(problem(num_nodes=1, scale_out=False)).ranked


def test_no_plan_on_the_front_beats_another_in_both() -> None:
    front = pareto(problem(num_nodes=2), "time", "cost")
    times = [e.outcome.time_s for _, e in front]
    costs = [e.outcome.cost_usd or 0.0 for _, e in front]
    assert times == sorted(times)
    assert costs == sorted(costs, reverse=True)
    best = best_plans(problem(num_nodes=2))
    assert times[0] == pytest.approx(best.ranked[0][1].outcome.time_s)


def test_baselines_fit_and_do_not_beat_the_optimum() -> None:
    for case in (problem(), problem(expert_model(), memory_bytes=30e9)):
        best = best_plans(case, limit=1).ranked[0][1].outcome.time_s
        found = baseline_plans(case)
        assert set(found) == {"newcomer", "well-known"}
        for _, estimate in found.values():
            assert estimate.outcome.time_s >= best * (1 - 1e-12)
        assert found["newcomer"][0].pipeline_degree == 1


def test_by_date_is_the_inverse_of_time() -> None:
    case = problem(num_nodes=2, tokens=10**10)
    time_s = best_plans(case).ranked[0][1].outcome.time_s
    tokens, _, _ = by_date(case, time_s * 1.0001)
    assert tokens == pytest.approx(
        case.workload.num_steps * case.workload.tokens_per_step, rel=1e-2
    )
    with pytest.raises(NegativeAnswer, match="no training step"):
        by_date(case, 1.0)


def test_the_largest_model_by_a_date() -> None:
    small, large = problem(dense_model(layers=4), tokens=10**10), problem(tokens=10**10)
    need_s = best_plans(large).ranked[0][1].outcome.time_s
    assert largest_model_by_date([small, large], 1.01 * need_s)[0] is large
    assert largest_model_by_date([small, large], 0.8 * need_s)[0] is small


def test_a_found_plan_round_trips_as_json(tmp_path: Path) -> None:
    case = problem(expert_model(), num_nodes=1)
    plan, estimate = best_plans(case).ranked[0]
    document = make_document(
        model=case.model,
        workload=case.workload,
        fleet=Fleet(name="f", pools=(case.pool,)),
        plan=plan,
        estimate=estimate,
        seed=0,
        twofold_version=__version__,
    )
    write_plan(document, tmp_path / "plan.json")
    assert read_plan(tmp_path / "plan.json") == document


def test_idle_devices_are_worth_it_where_the_number_is_awkward() -> None:
    """Eleven machines and a batch of 2^k: nothing uses them all, but five stages do ten."""
    case = problem(dense_model(layers=9), num_nodes=11, global_batch=256)
    with pytest.raises(NegativeAnswer) as caught:
        best_plans(case, fewer_devices=False)
    assert "use 80 devices" in (caught.value.help or "")
    assert best_plans(case).ranked[0][1] == best_plans(on_pool(case, num_nodes=10)).ranked[0][1]


def test_numbers_of_devices_have_many_divisors() -> None:
    assert device_counts(96, 96, fewer=None) == (96,)
    assert device_counts(88, 256, fewer=None) == (88, 80, 64, 48)
    assert device_counts(100_000, 15_360, fewer=None)[:3] == (100_000, 98_304, 81_920)
    assert set(device_counts(88, 256, fewer=True)) >= {88, 80, 64, 48, 44, 32, 24, 22, 16, 2, 1}


@pytest.mark.parametrize("objective", get_args(Objective))
def test_more_machines_are_never_worse(objective: Objective) -> None:
    least = np.inf
    for num_nodes in (4, 5, 6, 7, 9, 11):
        case = problem(num_nodes=num_nodes, global_batch=64)
        found = best_plans(case, objective=objective, limit=1).ranked[0][1].outcome
        key = {"time": "time_s", "cost": "cost_usd", "energy": "energy_j"}
        amount = getattr(found, key.get(objective, "carbon_kgco2e"))
        assert amount <= least * (1 + 1e-9)
        least = amount


def test_a_newcomer_has_what_frameworks_give() -> None:
    """Replicas where they fit, else sharded weights; the largest micro-batch; no recomputation
    where anything fits without."""
    roomy = baseline_plans(problem())["newcomer"][0]
    assert (roomy.zero_stage, roomy.data_degree, roomy.recompute) == (0, 16, "none")
    assert roomy.micro_batch > 1
    tight = baseline_plans(problem(memory_bytes=12e9))["newcomer"][0]
    assert (tight.zero_stage, tight.recompute) == (3, "none")


def test_a_newcomer_spreads_experts_over_a_machine() -> None:
    """As many ranks as there are experts or devices in a machine, and no straw man: in reach of
    the well-known recipe, where without experts spread it is several times slower."""
    case = problem(expert_model(), num_nodes=8, global_batch=512)
    plan, estimate = baseline_plans(case)["newcomer"]
    assert plan.expert_degree == case.pool.node.num_accelerators == 8
    assert estimate.outcome.time_s < 2.0 * baseline_plans(case)["well-known"][1].outcome.time_s
    few = expert_model(experts=Experts(count=6, top_k=2, ffn=2048))
    assert baseline_plans(problem(few, num_nodes=8))["newcomer"][0].expert_degree == 2
    assert baseline_plans(problem())["newcomer"][0].expert_degree == 1


def test_a_newcomer_shards_the_optimizer_of_experts_before_their_weights() -> None:
    stages = []
    for memory_bytes in (80e9, 15e9, 12e9):
        case = problem(expert_model(layers=24), memory_bytes=memory_bytes)
        plan = baseline_plans(case)["newcomer"][0]
        stages.append(plan.zero_stage)
    assert stages == [0, 1, 3]


def test_baselines_keep_the_limits_or_are_there_all_the_same() -> None:
    case = problem(num_nodes=4)
    free = baseline_plans(case)["newcomer"][1].outcome
    assert free.energy_j is not None
    cap = Limits(power_cap_w=0.7 * free.energy_j / free.time_s)
    capped = baseline_plans(case, limits=cap)["newcomer"][1].outcome
    assert (capped.energy_j or 0.0) / capped.time_s <= (cap.power_cap_w or 0.0)
    assert baseline_plans(case, limits=Limits(budget_usd=1e-3))["newcomer"][1].outcome == free
    small = baseline_plans(case, memory_limit_bytes=12e9)["newcomer"][1]
    assert peak_bytes(small) <= 12e9
