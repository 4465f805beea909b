"""Shares that follow the speeds of the run itself, decided alike on every rank."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from twofold.plan import Plan
from twofold.policy import place_of, rebalanced_shares, shares_of, stragglers

_WINDOW = 20
"""Steps between looks for stragglers where shares stay as they are."""


class Balance:
    """The sequences of every data rank.

    Over windows of steps the ranks' own times, without waits for each other, are added up. At a
    window's end ranks that hold the others up are named, once each time they start to; and with
    `rebalance_steps` shares follow the speeds. A rank that slows down within a window is thus met
    at the end of the next at the latest.
    """

    def __init__(self, plan: Plan, global_batch: int) -> None:
        self.plan = plan
        self.shares = shares_of(plan, global_batch)
        self._window = plan.rebalance_steps or _WINDOW
        self._data_rank = [place_of(rank, plan).data for rank in range(plan.num_ranks)]
        self._stages = [place_of(rank, plan).pipeline for rank in range(plan.num_ranks)]
        self._named: frozenset[int] = frozenset()
        self._spent_s: list[list[float]] = []

    def observe(self, compute_s: Sequence[float]) -> list[dict[str, Any]]:
        """Take in a step's times of all ranks; at a window's end, events for the metrics."""
        if self.plan.data_degree == 1:
            return []
        self._spent_s.append(list(compute_s))
        if len(self._spent_s) < self._window:
            return []
        means_s = [statistics.fmean(column) for column in zip(*self._spent_s, strict=True)]
        self._spent_s = []
        return [*self._name_stragglers(means_s), *self._rebalance(means_s)]

    def _name_stragglers(self, means_s: list[float]) -> list[dict[str, Any]]:
        found = dict(stragglers(means_s, stages=self._stages))
        started, self._named = found.keys() - self._named, frozenset(found)
        return [
            {"event": "straggler", "rank": rank, "slower_factor": found[rank]}
            for rank in sorted(started)
        ]

    def _rebalance(self, means_s: list[float]) -> list[dict[str, Any]]:
        if not self.plan.rebalance_steps:
            return []
        slowest_s = [0.0] * self.plan.data_degree
        for data, mean_s in zip(self._data_rank, means_s, strict=True):
            slowest_s[data] = max(slowest_s[data], mean_s)
        each_s = [s / share for s, share in zip(slowest_s, self.shares, strict=True)]
        shares = rebalanced_shares(self.plan, self.shares, each_s)
        if shares == self.shares:
            return []
        self.shares = shares
        return [{"event": "rebalanced", "shares": list(shares)}]
