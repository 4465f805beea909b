"""When a run moves its shares, and whom it names."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("torch")

from twofold.plan import Plan
from twofold.runtime.train.balance import Balance


def steps(balance: Balance, count: int, each_s: tuple[float, ...]) -> list[dict[str, Any]]:
    """So many steps of ranks that take so long for a sequence."""
    told = []
    for _ in range(count):
        times_s = [n * time_s for n, time_s in zip(balance.shares, each_s, strict=True)]
        told += balance.observe(times_s)
    return told


def test_shares_follow_a_rank_that_slows_down_within_two_windows() -> None:
    balance = Balance(Plan(data_degree=3, micro_batch=8, rebalance_steps=10), 24)
    assert steps(balance, 15, (1.0, 1.0, 1.0)) == []
    told = steps(balance, 15, (1.0, 1.0, 3.0))
    assert told[0] == {"event": "straggler", "rank": 2, "slower_factor": pytest.approx(2.0)}
    assert [event["shares"] for event in told[1:]] == [[10, 10, 4], [11, 10, 3]]
    assert balance.shares == (11, 10, 3)


def test_without_rebalancing_stragglers_are_named_once_and_shares_stay() -> None:
    balance = Balance(Plan(data_degree=2, tensor_degree=2, micro_batch=4), 8)
    told = [event for _ in range(60) for event in balance.observe([1.0, 1.0, 1.0, 2.0])]
    assert told == [{"event": "straggler", "rank": 3, "slower_factor": pytest.approx(2.0)}]
    assert balance.shares == (4, 4)


def test_a_data_rank_is_as_slow_as_its_slowest_rank() -> None:
    plan = Plan(data_degree=2, tensor_degree=2, micro_batch=6, rebalance_steps=1)
    balance = Balance(plan, 8)
    told = balance.observe([1.0, 3.0, 1.0, 1.0])
    assert told[-1] == {"event": "rebalanced", "shares": [2, 6]}
