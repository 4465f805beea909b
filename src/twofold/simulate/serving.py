"""Serving under the simulated clock: requests, routing, replicas.

Events are changes of batch composition, not tokens: between two changes a replica leaps. The
scheduler is the engine's own (`policy.batching`), the time of a step that of `perf.serving`.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence as Rows
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from twofold.errors import InputError
from twofold.policy.batching import Sequence
from twofold.policy.kv_blocks import Keys
from twofold.simulate.deployment import Deployment, Phase
from twofold.simulate.replica import Log, Replica
from twofold.workload.requests import Request
from twofold.workload.serve import Arrivals, Targets

Array = NDArray[np.float64]
_KEYS_PER_TEXT = 1 << 24
"""Names for the blocks of one text: more than a prompt can have."""
_ARRIVES, _PROMPT_DONE = -1, -2
"""Events that are of no replica; of a replica they bear its number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What became of the requests, in order of arrival, and of the replicas.

    `first_s` and `last_s` are when the first and the last token were told; `cached` counts prompt
    tokens that were found in the cache. `logs` are those of the replicas that take requests, and
    then, where there are such, those of the replicas that only decode.
    """

    requests: Rows[Request]
    arrival_s: Array
    first_s: Array
    last_s: Array
    cached: NDArray[np.int64]
    num_preemptions: int
    logs: tuple[tuple[Log, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """Of the requests from the `first` on at most `most_missed` may miss the targets."""

    targets: Targets
    first: int
    most_missed: int


def simulate(arrivals: Arrivals, requests: Rows[Request], deployment: Deployment) -> Served:
    """All requests to their ends. InputError for one that could never be answered."""
    served = simulate_while(arrivals, requests, deployment, None)
    assert served is not None
    return served


def simulate_while(
    arrivals: Arrivals,
    requests: Rows[Request],
    deployment: Deployment,
    patience: Patience | None,
) -> Served | None:
    """The same; None as soon as patience has ended."""
    return _Run(arrivals, requests, deployment, patience).run()


class _Run:
    """The state of one simulation, used once."""

    def __init__(
        self,
        arrivals: Arrivals,
        requests: Rows[Request],
        deployment: Deployment,
        patience: Patience | None,
    ) -> None:
        self.requests, self.arrivals, self.deployment = requests, arrivals, deployment
        self.patience, self.num_missed = patience, 0
        self.entry = _replicas(deployment.entry)
        self.decode = _replicas(deployment.decode)
        self.replicas = [*self.entry, *self.decode]
        number = len(requests)
        self.arrival_s = np.array([request.arrival_s for request in requests])
        self.first_s, self.last_s = np.full(number, np.nan), np.full(number, np.nan)
        self.cached = np.zeros(number, dtype=np.int64)
        self.num_preemptions = 0
        self.links_free_s = [0.0] * (1 if deployment.shared_link else len(self.entry))
        self.events: list[tuple[float, int, int, int]] = []
        self.num_events = 0
        self.num_sent = 0
        self.block_tokens = deployment.entry.limits.block_tokens
        _refuse_too_long(requests, self.entry[0], self.decode[0] if self.decode else None)

    def run(self) -> Served | None:
        closed = self.arrivals.kind == "closed"
        for _ in range(min(len(self.requests), self.arrivals.users or 1) if closed else 0):
            self._send(0.0)
        while not closed and self.num_sent < len(self.requests):
            self._send(self.requests[self.num_sent].arrival_s)
        to_start: set[int] = set()
        most_missed = self.patience.most_missed if self.patience else len(self.requests)
        while self.events and self.num_missed <= most_missed:
            now_s, _, place, value = heapq.heappop(self.events)
            if place == _ARRIVES:
                self._enter(now_s, value, to_start)
            elif place == _PROMPT_DONE:
                self._decode(now_s, value, to_start)
            elif value == self.replicas[place].leap:
                self._finish(now_s, place)
                to_start.add(place)
            if not self.events or self.events[0][0] > now_s:
                for place in sorted(to_start):
                    if self.replicas[place].start(now_s):
                        self._push_end(place)
                to_start.clear()
        if self.num_missed > most_missed:
            return None
        groups = (self.entry, self.decode) if self.decode else (self.entry,)
        return Served(
            requests=self.requests,
            arrival_s=self.arrival_s,
            first_s=self.first_s,
            last_s=self.last_s,
            cached=self.cached,
            num_preemptions=self.num_preemptions,
            logs=tuple(tuple(one.log for one in group) for group in groups),
        )

    def _send(self, at_s: float) -> None:
        """The next request comes then."""
        self.arrival_s[self.num_sent] = at_s
        self._push(at_s, _ARRIVES, self.num_sent)
        self.num_sent += 1

    def _push(self, at_s: float, place: int, value: int) -> None:
        self.num_events += 1
        heapq.heappush(self.events, (at_s, self.num_events, place, value))

    def _push_end(self, place: int) -> None:
        self._push(self.replicas[place].end_s, place, self.replicas[place].leap)

    def _enter(self, now_s: float, index: int, to_start: set[int]) -> None:
        request = self.requests[index]
        sequence = Sequence(
            id=index,
            prompt_tokens=request.input_tokens,
            max_new_tokens=1 if self.decode else request.output_tokens,
            prefix_keys=self._keys(request),
        )
        place = min(range(len(self.entry)), key=lambda one: self.entry[one].outstanding)
        self._give(now_s, place, sequence, to_start)

    def _decode(self, now_s: float, index: int, to_start: set[int]) -> None:
        """Keys and values are there: the first token is told, the others are computed here."""
        request = self.requests[index]
        self._told(now_s, index)
        sequence = Sequence(
            id=index,
            prompt_tokens=request.input_tokens,
            max_new_tokens=request.output_tokens,
            computed=request.input_tokens,
            generated=1,
        )
        places = range(len(self.entry), len(self.replicas))
        place = min(places, key=lambda one: self.replicas[one].outstanding)
        self._give(now_s, place, sequence, to_start)

    def _give(self, now_s: float, place: int, sequence: Sequence, to_start: set[int]) -> None:
        """To that replica; a leap it may change ends with the step under way."""
        one = self.replicas[place]
        cut = one.is_busy and one.could_admit()
        one.add(sequence)
        if cut:
            one.cut(now_s)
            self._push_end(place)
        elif not one.is_busy:
            to_start.add(place)

    def _finish(self, now_s: float, place: int) -> None:
        first, ended = self.replicas[place].finish()
        for sequence in first:
            self._told(now_s + self.deployment.answer_s, sequence.id)
            self.cached[sequence.id] = sequence.cached
        for sequence in ended:
            self.num_preemptions += sequence.preemptions
            if sequence.max_new_tokens < self.requests[sequence.id].output_tokens:
                self._transfer(now_s, place, sequence)
            else:
                self._answered(now_s, sequence.id)

    def _transfer(self, now_s: float, place: int, sequence: Sequence) -> None:
        assert self.deployment.transfer_s is not None
        link = 0 if self.deployment.shared_link else place
        start_s = max(now_s, self.links_free_s[link])
        self.links_free_s[link] = start_s + self.deployment.transfer_s(sequence.prompt_tokens)
        self._push(self.links_free_s[link], _PROMPT_DONE, sequence.id)

    def _answered(self, now_s: float, index: int) -> None:
        self.last_s[index] = now_s + self.deployment.answer_s
        if self.arrivals.kind == "closed" and self.num_sent < len(self.requests):
            self._send(float(self.last_s[index]) + self.arrivals.think_s)
        if self._is_judged(index):
            self.num_missed += not self._is_late(index) and not self._met(index)

    def _told(self, at_s: float, index: int) -> None:
        """The first token."""
        self.first_s[index] = at_s
        self.num_missed += self._is_judged(index) and self._is_late(index)

    def _is_judged(self, index: int) -> bool:
        return self.patience is not None and index >= self.patience.first

    def _is_late(self, index: int) -> bool:
        """With its first token."""
        assert self.patience is not None
        limit_s = self.patience.targets.ttft_s
        return limit_s is not None and bool(self.first_s[index] - self.arrival_s[index] > limit_s)

    def _met(self, index: int) -> bool:
        """All targets, of a request that was answered."""
        assert self.patience is not None
        ttft_s = float(self.first_s[index] - self.arrival_s[index])
        e2e_s = float(self.last_s[index] - self.arrival_s[index])
        steps = self.requests[index].output_tokens - 1
        return self.patience.targets.met(ttft_s, (e2e_s - ttft_s) / steps if steps else None, e2e_s)

    def _keys(self, request: Request) -> Keys:
        """Of the blocks of the shared text alone: the rest of a prompt nobody else can use, and is
        taken to be forgotten first."""
        if not request.prefix_tokens:
            return ()
        of_text = request.prefix * _KEYS_PER_TEXT
        return range(of_text, of_text + request.prefix_tokens // self.block_tokens)


def _replicas(phase: Phase | None) -> list[Replica]:
    return [] if phase is None else [Replica(phase) for _ in range(phase.replicas)]


def _refuse_too_long(requests: Rows[Request], entry: Replica, decode: Replica | None) -> None:
    """A sequence longer than the whole cache would wait for ever."""
    longest = max(requests, key=lambda one: one.input_tokens + one.output_tokens)
    _refuse_where_it_never_fits(longest, longest.output_tokens, decode or entry)
    if decode is not None:
        longest = max(requests, key=lambda one: one.input_tokens)
        _refuse_where_it_never_fits(longest, 1, entry)


def _refuse_where_it_never_fits(request: Request, new_tokens: int, replica: Replica) -> None:
    scheduler = replica.scheduler
    if scheduler.fits(request.input_tokens, new_tokens):
        return
    limits = scheduler.limits
    raise InputError(
        f"a request of {request.input_tokens:,} tokens and {new_tokens:,} new ones does not fit "
        f"a cache of {limits.num_blocks * limits.block_tokens:,} tokens and, whole, a step of "
        f"{limits.max_batched_tokens:,}",
        at="plan",
        help="give a replica more devices, or shorten the longest requests",
    )
