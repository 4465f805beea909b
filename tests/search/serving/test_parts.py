"""Parts of the search, by what must hold whatever is put in."""

from __future__ import annotations

from dataclasses import replace

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from tests.search.serving.questions import SHORT, question
from twofold.errors import InputError
from twofold.perf.queueing import closed_rates, demand_of, most_rates, steady_states
from twofold.perf.serving import replica, serving_memory, step_parts_s
from twofold.search.serving.dividend import thinking_tokens
from twofold.search.serving.question import fitted_to
from twofold.search.serving.space import divisions, limits
from twofold.search.serving.trial import scaled, try_plan
from twofold.serving_plan import ServingPlan
from twofold.workload.serve import Lengths, Targets

ASKED = question()
POOL = ASKED.fleet.pools[0]
_PRICED = replica(ASKED.model, ASKED.fleet, ServingPlan(pool=POOL.name))
_SEQUENCES, _TOKENS = np.array(list(limits()), dtype=np.float64).T
STEADY = steady_states(
    lambda steps: step_parts_s(_PRICED, steps),
    demand_of(ASKED.sample, cached=True, quantile=0.9),
    max_num_seqs=_SEQUENCES,
    max_batched_tokens=_TOKENS,
    cache_tokens=100_000.0,
    quantile=0.9,
)
TIMES = st.none() | st.floats(1e-4, 10.0)


@given(first=st.tuples(TIMES, TIMES, TIMES), which=st.integers(0, 2), extra=st.floats(1e-4, 10.0))
@settings(deadline=None, max_examples=100)
def test_one_target_more_or_a_tighter_one_never_carries_more(
    first: tuple[float | None, float | None, float | None], which: int, extra: float
) -> None:
    more = list(first)
    known = more[which]
    more[which] = extra if known is None else min(known, extra)
    few, many = (
        most_rates(STEADY, Targets(ttft_s=one[0], tpot_s=one[1], e2e_s=one[2]))[0]
        for one in (first, more)
    )
    assert (many <= few * (1 + 1e-9)).all()


@given(users=st.floats(1.0, 200.0), think_s=st.floats(0.0, 5.0))
@settings(deadline=None, max_examples=50)
def test_more_users_are_answered_more_and_wait_longer(users: float, think_s: float) -> None:
    rates, lives_s = closed_rates(STEADY, users, think_s)
    more, longer_s = closed_rates(STEADY, 2 * users, think_s)
    assert (more >= rates * (1 - 1e-9)).all()
    assert (longer_s >= lives_s * (1 - 0.05)).all()


@given(ttft_s=st.floats(0.01, 5.0), tpot_s=st.floats(0.001, 0.5), tokens=st.integers(1, 10_000))
def test_thinking_tokens_are_those_that_take_the_wait(
    ttft_s: float, tpot_s: float, tokens: int
) -> None:
    wait_s = ttft_s + (tokens - 1) * tpot_s
    assert thinking_tokens(wait_s, ttft_s, tpot_s) == pytest.approx(tokens, rel=1e-6)
    assert thinking_tokens(0.99 * ttft_s, ttft_s, tpot_s) == 0.0


def test_every_division_holds_the_longest_request_on_the_devices_there_are() -> None:
    found = divisions(ASKED, POOL)
    assert found.fitting
    assert len(found.fitting) + sum(found.rejected.values()) == found.num_considered
    for one in found.fitting:
        assert one.plan.replica_devices <= POOL.num_devices
        memory = serving_memory(ASKED.model, ASKED.fleet, one.plan)
        assert memory.num_blocks * one.plan.block_tokens == one.cache_tokens
        assert one.cache_tokens >= ASKED.longest_tokens


def test_copies_of_a_part_cost_alike_by_the_token() -> None:
    tried = try_plan(ASKED, ServingPlan(pool=POOL.name), 2.0, 0.2)
    twice = scaled(tried.outcome, 2)
    assert twice.usd_per_million_output_tokens() == pytest.approx(
        tried.outcome.usd_per_million_output_tokens()
    )
    assert twice.requests_per_s == pytest.approx(2 * tried.outcome.requests_per_s)
    assert twice.tpot_s == tried.outcome.tpot_s


def test_requests_are_cut_to_what_the_model_reads() -> None:
    workload, notes = fitted_to(ASKED.model, SHORT)
    assert notes == []
    assert workload.output.most == 40
    with pytest.raises(InputError, match="do not fit"):
        fitted_to(ASKED.model, replace(SHORT, input=Lengths(mean=200_000.0)))
