"""The order of plans by closed form against that of the simulation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import spearmanr

from tests.search.serving.questions import question
from twofold.perf.queueing import demand_of, steady_states
from twofold.perf.serving import replica, serving_memory, step_parts_s
from twofold.serving_plan import ServingPlan
from twofold.simulate import simulate_plan
from twofold.workload.serve import Arrivals


@pytest.mark.slow
def test_medians_and_order_of_plans_agree_with_the_simulation() -> None:
    asked = question(fleet="h100-sxm:8")
    pool = asked.fleet.pools[0]
    demand = demand_of(asked.sample, cached=True, quantile=0.9)
    told: dict[str, list[tuple[float, float]]] = {"ttft": [], "tpot": []}
    for tensor, precision, weights in (
        (1, "bf16", "same"),
        (2, "bf16", "same"),
        (4, "bf16", "same"),
        (8, "bf16", "same"),
        (1, "fp8", "same"),
        (1, "bf16", "int8"),
    ):
        plan = ServingPlan(
            pool=pool.name,
            tensor_degree=tensor,
            precision=precision,  # type: ignore[arg-type]
            weight_precision=weights,  # type: ignore[arg-type]
        )
        priced = replica(asked.model, asked.fleet, plan)
        steady = steady_states(
            lambda steps, priced=priced: step_parts_s(priced, steps),  # type: ignore[misc]
            demand,
            max_num_seqs=np.array([256.0]),
            max_batched_tokens=np.array([8192.0]),
            cache_tokens=16.0 * serving_memory(asked.model, asked.fleet, plan).num_blocks,
            quantile=0.9,
        )
        for rate_per_s in (2.0, 10.0, 20.0):
            workload = replace(
                asked.workload,
                arrivals=Arrivals(rate_per_s=rate_per_s),
                num_requests=400,
                warmup_requests=50,
            )
            outcome = simulate_plan(asked.model, asked.fleet, plan, workload).estimate.outcome
            assert outcome.tpot_s is not None
            rates = steady.rate_per_s[0]
            for name, column, seen_s in (
                ("ttft", steady.ttft_s, outcome.ttft_s.p50),
                ("tpot", steady.tpot_s, outcome.tpot_s.p50),
            ):
                told[name].append((float(np.interp(rate_per_s, rates, column[0])), seen_s))
    for name, within in (("ttft", 0.25), ("tpot", 0.06)):
        closed_s, seen_s = np.array(told[name]).T
        off = np.median(np.abs(closed_s / seen_s - 1.0))
        rank = spearmanr(closed_s, seen_s).statistic
        print(f"{name}: median off {off:.1%}, rank {rank:.2f}")
        assert off < within
        assert rank > 0.95
