"""Unlike rows are the uniform composers' own: where ranks and stages are alike, both agree."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fleets import figure
from tests.machines import calibrated_fleet
from tests.search.fleet_problems import pool, problem
from tests.workloads import modern_model, train
from twofold.fleet import Fleet, Link, Pool, PoolLink
from twofold.perf import estimate
from twofold.perf.fleet import price_table
from twofold.perf.joints import Joint, best_ring, host_staged_bytes_per_s, joint_of, ring_hops
from twofold.perf.local_updates import (
    MOST_LOCAL_STEPS,
    exchange_bytes,
    exposed_s,
    fewest_local_steps,
    needed_bytes_per_s,
    streaming_bytes_per_s,
)
from twofold.perf.plans import table_of
from twofold.perf.pool_exchange import gloo_exchange, pieces_exchange_s
from twofold.perf.sockets import FRAMED
from twofold.perf.speeds import fitted_efficiencies
from twofold.perf.uneven import fleet_rank_costs, local_rank_costs
from twofold.perf.uneven_stages import fleet_stage_costs, local_stage_costs
from twofold.plan import Plan

FIT = fitted_efficiencies()


@pytest.mark.parametrize("pipeline", [1, 2])
@pytest.mark.parametrize("micro_batch", [1, 3])
@pytest.mark.parametrize("recompute", ["none", "full"])
def test_a_rank_of_a_uniform_plan(pipeline: int, micro_batch: int, recompute: str) -> None:
    case = problem(global_batch=48)
    plan = Plan(
        pool="made-up",
        micro_batch=micro_batch,
        data_degree=4,
        pipeline_degree=pipeline,
        zero_stage=1,
        precision="bf16",
        recompute=recompute,  # type: ignore[arg-type]
    )
    whole = price_table(case, table_of([plan]))
    [costs] = fleet_rank_costs(case, [plan], 4, np.inf)
    parts = costs.parts_s(12, 12 // micro_batch)
    for name, seconds in parts.items():
        assert seconds == pytest.approx(float(whole.step.parts_s[name][0]), rel=1e-9, abs=1e-12)
    assert costs.peak_at(12, 12 // micro_batch) == pytest.approx(
        float(whole.footprint.peak_bytes[0])
    )


@pytest.mark.parametrize("micro_batch", [1, 2, 4])
def test_a_process_without_a_quota(micro_batch: int) -> None:
    fleet, model = calibrated_fleet(), modern_model()
    plans = [Plan(micro_batch=size) for size in (1, 2, 3, 4)]
    costs = local_rank_costs(model, train(), fleet.pools[0], plans, np.inf)
    whole = estimate(model, train(), fleet, plans[micro_batch - 1])
    parts = costs.parts_s(8, 8 // micro_batch)
    assert sum(parts.values()) == pytest.approx(whole.outcome.step_time_s, rel=1e-3)
    assert costs.peak_at(8, 8 // micro_batch) == whole.outcome.peak_memory_bytes


@pytest.mark.parametrize("cores", [0.1, 0.25, 0.75])
def test_a_quota_stretches_every_second(cores: float) -> None:
    whole = calibrated_fleet().pools[0]
    part = replace(whole, cpu_cores=figure(cores, "1"))
    plans = [Plan(micro_batch=size) for size in (1, 2)]
    free, held = (
        local_rank_costs(modern_model(), train(), p, plans, np.inf) for p in (whole, part)
    )
    np.testing.assert_allclose(held.finish_s(2), free.finish_s(2) / cores, rtol=1e-9)


def test_memory_ends_the_shares() -> None:
    case = problem()
    plan = Plan(pool="made-up", micro_batch=1, precision="bf16")
    [costs] = fleet_rank_costs(case, [plan], 8, np.inf)
    [held] = fleet_rank_costs(case, [plan], 8, float(costs.peak_bytes[4]))
    assert held.num_fitting == 5
    assert len(held.finish_s(3)) == 3 * 5 - 3 + 1
    assert np.all(np.diff(held.finish_s(3)) >= 0)


def test_one_stage_is_the_whole_model() -> None:
    case = problem(global_batch=48)
    plan = Plan(
        pool="made-up", micro_batch=2, data_degree=4, tensor_degree=2, zero_stage=1,
        sequence_parallel=True, precision="bf16",
    )  # fmt: skip
    whole = price_table(case, table_of([plan]))
    costs = fleet_stage_costs(case, plan, np.inf)
    seconds = float(costs.block_s.sum()) + costs.first_s + costs.last_s
    [rank] = fleet_rank_costs(case, [plan], 2, np.inf)
    each = sum(float(column[1]) for column in rank.each_s.values())
    assert seconds == pytest.approx(each, rel=0.01)  # a last stage has a copy of a tied table
    assert costs.peak_at(1.0, first=True, last=True)[-1] == pytest.approx(
        float(whole.footprint.peak_bytes[0])
    )


def test_stages_of_a_uniform_pipeline_have_its_peak() -> None:
    case = problem(global_batch=64)
    plan = Plan(
        pool="made-up", micro_batch=1, data_degree=4, pipeline_degree=2, zero_stage=1,
        precision="bf16",
    )  # fmt: skip
    whole = price_table(case, table_of([plan]))
    costs = fleet_stage_costs(case, plan, np.inf)
    half = case.model.layers // 2 - 1
    first = costs.peak_at(2.0, first=True, last=False)[half]
    last = costs.peak_at(1.0, first=False, last=True)[half]
    assert max(first, last) == pytest.approx(float(whole.footprint.peak_bytes[0]), rel=1e-6)


def test_local_stages_add_up_to_the_model() -> None:
    fleet, model = calibrated_fleet(), modern_model()
    plan = Plan(micro_batch=2)
    costs = local_stage_costs(model, train(), fleet.pools[0], plan, 0.0, np.inf)
    ranks = local_rank_costs(
        model, train(), fleet.pools[0], [replace(plan, micro_batch=s) for s in (1, 2)], np.inf
    )
    each = sum(float(column[1]) for column in ranks.each_s.values())
    seconds = float(costs.block_s.sum()) + costs.first_s + costs.last_s
    assert seconds == pytest.approx(each, rel=0.02)
    whole = estimate(model, train(), fleet, plan).outcome.peak_memory_bytes
    assert costs.peak_at(1.0, first=True, last=True)[-1] == pytest.approx(whole)
    assert np.all(np.diff(costs.peak_at(1.0, first=True, last=False)) > 0)


def test_unlike_vendors_go_by_way_of_their_hosts() -> None:
    """HETHUB's two communicators: 1 / (1/PCIe + 1/NIC + 1/PCIe), at most RDMA."""
    assert host_staged_bytes_per_s(32e9, 50e9, 64e9) == pytest.approx(
        1 / (1 / 32e9 + 1 / 50e9 + 1 / 64e9)
    )
    assert host_staged_bytes_per_s(32e9, 50e9, 64e9, direct=1e9) == 1e9
    green, red = named("green", vendor="nvidia"), named("red", vendor="amd")
    both = Fleet(name="f", pools=(green, red))
    alike = Fleet(name="f", pools=(green, named("red", vendor="nvidia")))
    staged = joint_of(both, *both.pools, FIT)
    direct = joint_of(alike, *alike.pools, FIT)
    assert staged.bytes_per_s < direct.bytes_per_s
    assert "hosts" in staged.how
    assert direct.rate_of(1) * 16 == pytest.approx(direct.bytes_per_s)


def test_a_stated_link_is_taken_at_its_word() -> None:
    link = PoolLink(
        between=("b", "a"),
        latency_s=figure(0.03, "s"),
        bandwidth_bytes_per_s=figure(1e8, "B/s"),
    )
    fleet = Fleet(name="f", pools=(named("a"), named("b")), links=(link,))
    joint = joint_of(fleet, *fleet.pools, FIT)
    assert (joint.bytes_per_s, joint.latency_s) == (1e8, 0.03)
    assert joint.rate_of(1) == 1e8


def test_the_ring_avoids_the_slowest_link() -> None:
    rates = np.full((4, 4), 10.0)
    rates[0, 1] = rates[1, 0] = 1.0
    hops = ring_hops(best_ring(4, rates))
    assert (0, 1) not in hops
    assert (1, 0) not in hops
    assert best_ring(2, rates[:2, :2]) == (0, 1)


@given(st.lists(st.integers(1, 8), min_size=2, max_size=3), st.floats(1e5, 1e10))
def test_pieces_pass_the_link_between_pools_or_the_ports(ranks: list[int], rate: float) -> None:
    total, size = sum(ranks), 1e6
    link = Joint(port_bytes_per_s=rate, bytes_per_s=rate, latency_s=0.0, how="")
    joints = {(a, b): link for a in range(len(ranks)) for b in range(a)}
    seconds = pieces_exchange_s(size, ranks, joints, rate)
    assert seconds >= exchange_bytes(size, 1.0, total) / rate * (1 - 1e-9)
    assert seconds >= 2 * size * ranks[0] * ranks[1] / total / rate * (1 - 1e-9)
    faster = {pair: replace(link, bytes_per_s=2 * rate) for pair in joints}
    assert pieces_exchange_s(size, ranks, faster, 2 * rate) == pytest.approx(seconds / 2)


def test_a_ring_of_processes_goes_at_the_pace_of_the_stated_port() -> None:
    processes = calibrated_fleet().pools[0]
    gloo = Link(name="gloo", latency_s=figure(0.0, "s"), bandwidth_bytes_per_s=figure(1e9, "B/s"))
    port = replace(gloo, name="port", scope="scale-out", bandwidth_bytes_per_s=figure(1e6, "B/s"))
    limited = replace(processes, node=replace(processes.node, links=(gloo, port)))
    free = replace(processes, node=replace(processes.node, links=(gloo,)))
    slow = gloo_exchange([(limited, 4)], [], 1e6).once_s
    assert slow == pytest.approx(1.5 * FRAMED)
    assert gloo_exchange([(free, 4)], [], 1e6).once_s == pytest.approx(1.5e-3)
    assert gloo_exchange([(limited, 1)], [], 1e6).once_s == 0.0
    quota = replace(free, cpu_cores=figure(0.25, "1"))
    assert gloo_exchange([(quota, 4)], [], 1e6).once_s == pytest.approx(6e-3)


def test_traffic_of_local_updates() -> None:
    """2 P b (M - 1) / M, and the rates that follow from it."""
    assert exchange_bytes(1e9, 4.0, 2) == 4e9
    assert exchange_bytes(1e9, 1.0, 8) == pytest.approx(1.75e9)
    rate = needed_bytes_per_s(1e9, 4.0, 2, overhead_fraction=0.1, local_steps=100, step_s=2.0)
    assert rate == pytest.approx(4e9 / 20.0)
    assert exposed_s(4e9 / rate, 2.0, local_steps=100, fragments=1) == pytest.approx(0.2)
    assert streaming_bytes_per_s(
        1e9, 1.0, fragments=4, overlapped_steps=5, step_s=2.0
    ) == pytest.approx(2e9 / 40.0)


@given(st.floats(1e-6, 1e6), st.floats(1e-3, 1e3), st.floats(0.01, 1.0))
def test_the_fewest_local_steps_keep_the_overhead(
    exchange_s: float, step_s: float, fraction: float
) -> None:
    steps = fewest_local_steps(exchange_s, step_s, fraction)
    assert 1 <= steps <= MOST_LOCAL_STEPS
    if steps < MOST_LOCAL_STEPS:
        assert exchange_s / steps <= fraction * step_s * (1 + 1e-9)
    assert exposed_s(exchange_s, step_s, local_steps=steps, fragments=4) <= exchange_s / steps


def named(name: str, vendor: str = "nvidia") -> Pool:
    return replace(pool(vendor=vendor), name=name)
