"""No floor is above what a plan takes, and a search that skips by it finds the same plans."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest

from tests.fleets import figure
from tests.search.fleet_problems import dense_model, expert_model, problem
from twofold.perf.fleet import Problem
from twofold.search import best_plans, fleet_search
from twofold.search.fleet_space import make_space
from twofold.search.floors import least_usd
from twofold.search.levers import make_levers
from twofold.search.objective import Objective
from twofold.search.sweep import price_space, priced_chunks

LIMIT_BYTES = 20e9

CASES = {
    "dense": lambda: problem(dense_model(layers=7), num_nodes=2, memory_bytes=LIMIT_BYTES),
    "experts": lambda: problem(expert_model(layers=5), num_nodes=2, memory_bytes=LIMIT_BYTES),
    "unreliable": lambda: unreliable(problem(dense_model(), num_nodes=2)),
}


def unreliable(case: Problem) -> Problem:
    device = replace(case.pool.node.accelerator, failures_per_hour=figure(0.02, "1/h"))
    node = replace(case.pool.node, accelerator=device)
    preempted = figure(0.05, "1/h")
    return replace(case, pool=replace(case.pool, node=node, preemptions_per_hour=preempted))


@pytest.mark.parametrize("name", CASES)
def test_no_plan_takes_less_than_its_floor(name: str) -> None:
    case = CASES[name]()
    priced = price_space(case, make_space(case, make_levers(case)))
    shares = []
    for chunk, _, _ in priced_chunks(priced, LIMIT_BYTES):
        assert chunk is not None
        key = priced.layer_of_layout[chunk.layout] + priced.layer_of_order[chunk.order]
        held = chunk.layout + priced.width_of_order[chunk.order]
        per_stage = priced.order.fullest_share[chunk.order] * case.model.layers
        whole = chunk.recomputed_layers >= per_stage
        floor = np.where(
            whole,
            priced.floors.time_s(1, key, held, chunk.order),
            priced.floors.time_s(0, key, held, chunk.order),
        )
        assert (floor <= chunk.columns.time_s).all()
        usd = least_usd(case.pool, floor, priced.order.devices[chunk.order])
        assert (usd <= chunk.columns.cost_usd).all()
        shares.append(floor / chunk.columns.time_s)
    # Tight enough to be of use: most plans without a pipeline are mostly computation.
    assert np.concatenate(shares).max() > 0.9


@pytest.mark.parametrize("objective", get_args(Objective))
@pytest.mark.parametrize("name", CASES)
def test_what_is_not_priced_could_not_have_won(
    name: str, objective: Objective, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = CASES[name]()
    skipping = best_plans(case, objective=objective, limit=4)

    def all_of_them(priced, limit_bytes, worth=None):  # type: ignore[no-untyped-def]
        return priced_chunks(priced, limit_bytes)

    monkeypatch.setattr(fleet_search, "priced_chunks", all_of_them)
    pricing = best_plans(case, objective=objective, limit=4)
    assert skipping.ranked == pricing.ranked
    assert skipping.num_fitting == pricing.num_fitting
    assert skipping.rejected == pricing.rejected


def test_most_plans_are_not_priced(monkeypatch: pytest.MonkeyPatch) -> None:
    priced_rows = []

    def counted(priced, limit_bytes, worth=None):  # type: ignore[no-untyped-def]
        for chunk, num_fitting, num_too_big in priced_chunks(priced, limit_bytes, worth):
            priced_rows.append(0 if chunk is None else len(chunk.layout))
            yield chunk, num_fitting, num_too_big

    monkeypatch.setattr(fleet_search, "priced_chunks", counted)
    found = best_plans(problem(expert_model(), num_nodes=16, global_batch=512), limit=3)
    assert sum(priced_rows) < 0.5 * found.num_fitting
