"""Driving a server: open loop at the intended times, closed loop, or all at once.

Open loops send when the drawn time has come, however many answers are still out, and latency
counts from that time: a stalled server cannot slow its own examination (no coordinated
omission). The lag of the sender itself is in every answer.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import aiohttp

from twofold.evidence.serving.answers import Answer
from twofold.measure.load.client import Prompt, Server, address, body_of, connect, send
from twofold.measure.load.stream import Event, Told, answer_of, told_of
from twofold.workload.requests import Request, draw_requests
from twofold.workload.serve import Serve

_LEAST_SLEEP_S = 0.0005
_SILENT_S = 120.0
"""Where nothing at all came for so long, no more is waited for."""
_CONNECTIONS = 16
"""Opened before the clock starts where nobody says how many requests will be out at once."""

T = TypeVar("T")
OnDone = Callable[[int, int], None]
"""Told (answered so far, requests in all)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Driven:
    """`answers` in the order of the requests; `told` is kept where it was asked for."""

    answers: tuple[Answer, ...]
    told: tuple[Told | None, ...] = ()
    interrupted: bool = False


@dataclass(slots=True)
class _Sent:
    intended_s: float
    sent_s: float
    end_s: float = 0.0
    events: list[Event] = field(default_factory=list)
    error: str | None = None


def requests_for(workload: Serve, seed: int, least_s: float) -> list[Request]:
    """The drawn requests, more of them where an open loop would not last `least_s` (LoadGen's
    minimum duration: both the number and the time must be reached)."""
    requests = draw_requests(workload, seed)
    rate = workload.arrivals.rate_per_s
    if workload.arrivals.kind not in ("poisson", "bursty") or rate is None:
        return requests
    while requests[-1].arrival_s < least_s:
        more = int(1.1 * workload.num_requests * least_s / requests[-1].arrival_s) + 1
        workload = replace(workload, num_requests=max(more, workload.num_requests + 1))
        requests = draw_requests(workload, seed)
    return requests


async def drive(
    http: aiohttp.ClientSession,
    server: Server,
    workload: Serve,
    requests: Sequence[Request],
    prompts: Sequence[Prompt],
    *,
    seed: int,
    least_s: float = 0.0,
    logprobs: int | None = None,
    on_done: OnDone | None = None,
    stop: asyncio.Event | None = None,
) -> Driven:
    """Send them all and wait for the answers. `stop` ends it early and keeps what was answered.

    A closed loop goes on with the same requests from the first until `least_s` have passed.
    """
    run = _Run(http, server, requests, prompts, seed, logprobs, on_done, stop or asyncio.Event())
    kind = workload.arrivals.kind
    number = min(len(requests), workload.arrivals.users or _CONNECTIONS)
    await unless_stopped(connect(http, server, number), run.stop)
    if kind == "closed":
        await run.closed(workload.arrivals.users or 1, workload.arrivals.think_s, least_s)
    else:
        await run.open([0.0 if kind == "offline" else r.arrival_s for r in requests])
    return run.result()


async def unless_stopped(work: Coroutine[Any, Any, T], stop: asyncio.Event) -> T | None:
    """The work's result; None, and the work is cancelled, where it is stopped before."""
    working, waiting = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait((working, waiting), return_when=asyncio.FIRST_COMPLETED)
        return await working if working.done() else None
    finally:
        for task in (working, waiting):
            task.cancel()
        await asyncio.gather(working, waiting, return_exceptions=True)


class _Run:
    """One stretch under way."""

    def __init__(
        self,
        http: aiohttp.ClientSession,
        server: Server,
        requests: Sequence[Request],
        prompts: Sequence[Prompt],
        seed: int,
        logprobs: int | None,
        on_done: OnDone | None,
        stop: asyncio.Event,
    ) -> None:
        self.http, self.server, self.url = http, server, address(server)
        self.requests, self.stop, self.on_done = requests, stop, on_done
        self.keep_told = logprobs is not None
        self.bodies = [
            body_of(server, prompt, request.output_tokens, seed=seed, logprobs=logprobs)
            for request, prompt in zip(requests, prompts, strict=True)
        ]
        self.sent: dict[int, _Sent] = {}
        self.num_answered = 0
        self.start_s = time.perf_counter()

    def _now(self) -> float:
        return time.perf_counter() - self.start_s

    async def open(self, arrivals_s: Sequence[float]) -> None:
        """Each at its time. Sleeping ends a little early and the rest is waited in short naps,
        since timers of the event loop are no better than a millisecond."""
        self.start_s = time.perf_counter()
        tasks: set[asyncio.Task[None]] = set()
        for number, arrival_s in enumerate(arrivals_s):
            while (left_s := arrival_s - self._now()) > 0 and not self.stop.is_set():
                await asyncio.sleep(max(left_s - 0.001, 0) if left_s > 0.002 else _LEAST_SLEEP_S)
            if self.stop.is_set():
                break
            tasks.add(asyncio.create_task(self._one(number, number, arrival_s)))
            if arrival_s < self._now() - 0.01:
                await asyncio.sleep(0)
        await self._finish(tasks)

    async def closed(self, users: int, think_s: float, least_s: float) -> None:
        """Each user sends the next request `think_s` after an answer."""
        self.start_s = time.perf_counter()
        numbers = itertools.count()

        async def user() -> None:
            for turn in itertools.count():
                number = next(numbers)
                enough = number >= len(self.requests) and self._now() >= least_s
                if enough or self.stop.is_set():
                    return
                if turn and think_s:
                    await asyncio.sleep(think_s)
                await self._one(number, number % len(self.requests), self._now())

        await self._finish({asyncio.create_task(user()) for _ in range(users)})

    async def _one(self, number: int, request: int, intended_s: float) -> None:
        sent = self.sent[number] = _Sent(intended_s=intended_s, sent_s=self._now())
        try:
            sent.error = await send(self.http, self.url, self.bodies[request], sent.events)
        except asyncio.CancelledError:
            sent.error = "not waited for"
            raise
        finally:
            sent.end_s = self._now()
        self.num_answered += 1
        if self.on_done is not None:
            self.on_done(self.num_answered, len(self.requests))

    async def _finish(self, tasks: set[asyncio.Task[None]]) -> None:
        """Wait for the answers while any of them goes on; for none where it was stopped."""
        waiting = asyncio.create_task(self.stop.wait())
        pending, come = set(tasks), self._num_come()
        while pending and not self.stop.is_set():
            done, _ = await asyncio.wait(
                {*pending, waiting}, return_when=asyncio.FIRST_COMPLETED, timeout=_SILENT_S
            )
            pending -= done
            before, come = come, self._num_come()
            if not done and come == before:
                break
        waiting.cancel()
        for task in pending:
            task.cancel()
        await asyncio.gather(*tasks, waiting, return_exceptions=True)

    def _num_come(self) -> int:
        """Grows with every event and every answer."""
        return self.num_answered + sum(len(sent.events) for sent in self.sent.values())

    def result(self) -> Driven:
        answers, told = [], []
        for number in sorted(self.sent):
            sent = self.sent[number]
            request = self.requests[number % len(self.requests)]
            if self.stop.is_set() and sent.error == "not waited for":
                continue
            events = [(time_s - self.start_s, data) for time_s, data in sent.events]
            answers.append(
                answer_of(
                    events,
                    intended_s=sent.intended_s,
                    sent_s=sent.sent_s,
                    end_s=sent.end_s,
                    asked_input_tokens=request.input_tokens,
                    error=sent.error,
                )
            )
            told.append(told_of(events) if self.keep_told else None)
        return Driven(answers=tuple(answers), told=tuple(told), interrupted=self.stop.is_set())
