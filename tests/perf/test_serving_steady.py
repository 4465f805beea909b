"""The steady state: Little's law, unloaded limits, and that two loops agree at one load."""

from __future__ import annotations

import numpy as np
import pytest

from twofold.fleet import StepCurve
from twofold.perf.serving_steady import Load, aggregated, at_rate, disaggregated, static_batch
from twofold.perf.serving_terms import curve_terms

CURVE = StepCurve(
    model_hash="", precision="bf16", weight_precision="same", threads=1,
    step_s=5e-3, token_s=2e-5, sequence_s=1e-5, pair_s=0.0, key_s=1e-9, spread=0.0,
)  # fmt: skip
TERMS = curve_terms(CURVE)


def _load(users: float, **changes: float) -> Load:
    numbers = {
        "users": users, "input_tokens": 1000.0, "output_tokens": 200.0, "max_sequences": 1e6,
        "budget_tokens": 8192.0, "waves": 0.0, "wait_steps": 0.0, "host_s": 0.0,
    } | changes  # fmt: skip
    return Load(**{name: np.array([value]) for name, value in numbers.items()})


@pytest.mark.parametrize("users", [1.0, 8.0, 64.0, 300.0])
def test_little_s_law_holds(users: float) -> None:
    """users = throughput x (TTFT + (O - 1) TPOT)."""
    steady = aggregated(TERMS, _load(users))
    in_flight = steady.requests_per_s * (steady.ttft_s + 199.0 * steady.tpot_s)
    assert in_flight == pytest.approx(users, rel=1e-3)


def test_a_lone_user_waits_for_the_prompt_and_then_for_single_steps() -> None:
    steady = aggregated(TERMS, _load(1.0))
    prompt_s = 5e-3 + 2e-5 * 1000
    assert steady.ttft_s[0] == pytest.approx(prompt_s, rel=0.05)
    assert steady.tpot_s[0] == pytest.approx(5e-3 + 2e-5, rel=0.03)


def test_users_beyond_the_cache_wait_outside() -> None:
    few, many = (aggregated(TERMS, _load(users, max_sequences=16.0)) for users in (16.0, 64.0))
    assert many.tpot_s[0] <= few.tpot_s[0] * 1.3
    assert many.requests_per_s[0] < 1.3 * few.requests_per_s[0]
    assert many.ttft_s[0] > 5 * few.ttft_s[0]


def test_more_users_bring_more_tokens_and_slower_ones() -> None:
    runs = [aggregated(TERMS, _load(users)) for users in (1.0, 4.0, 16.0, 64.0)]
    assert np.all(np.diff([run.requests_per_s[0] for run in runs]) > 0)
    assert np.all(np.diff([run.tpot_s[0] for run in runs]) > 0)


def test_the_open_loop_at_the_closed_loop_s_rate_is_the_same_state() -> None:
    closed = aggregated(TERMS, _load(32.0))
    opened = at_rate(TERMS, _load(32.0), closed.requests_per_s)
    assert opened.tpot_s[0] == pytest.approx(closed.tpot_s[0], rel=0.01)
    assert opened.ttft_s[0] == pytest.approx(closed.ttft_s[0], rel=0.01)


def test_more_than_can_be_served_waits_without_end() -> None:
    swamped = at_rate(TERMS, _load(1.0, max_sequences=4.0), np.array([1e4]))
    assert np.isinf(swamped.ttft_s[0])


def test_waves_and_waiting_are_added() -> None:
    plain = aggregated(TERMS, _load(16.0)).ttft_s[0]
    assert aggregated(TERMS, _load(16.0, waves=0.5)).ttft_s[0] > plain
    assert aggregated(TERMS, _load(16.0, wait_steps=3.0)).ttft_s[0] > plain


def test_a_static_batch_by_hand() -> None:
    steady = static_batch(TERMS, _load(4.0, budget_tokens=4000.0))
    assert steady.ttft_s[0] == pytest.approx(5e-3 + 2e-5 * 4000 + 4e-5)
    assert steady.tpot_s[0] == pytest.approx(5e-3 + 8e-5 + 4e-5 + 1e-9 * 4 * 1100)
    batch_s = steady.ttft_s[0] + 199 * steady.tpot_s[0]
    assert steady.requests_per_s[0] == pytest.approx(4 / batch_s)


def test_prompts_elsewhere_leave_decoding_alone() -> None:
    one = np.array([1.0])
    together = aggregated(TERMS, _load(32.0))
    apart = disaggregated(TERMS, TERMS, _load(32.0), 2 * one, one, 0.01 * one)
    assert apart.tpot_s[0] < together.tpot_s[0]
    in_flight = apart.requests_per_s * (apart.ttft_s + 199.0 * apart.tpot_s)
    assert in_flight == pytest.approx(32.0, rel=0.02)


def test_too_few_prefill_machines_set_the_pace() -> None:
    one = np.array([1.0])
    steady = disaggregated(TERMS, TERMS, _load(400.0), one, 4 * one, 0.0 * one)
    prompt_s = 5e-3 + 2e-5 * 1000 + 1e-5
    assert steady.requests_per_s[0] == pytest.approx(1 / prompt_s, rel=0.05)
    assert steady.ttft_s[0] > 5 * prompt_s
