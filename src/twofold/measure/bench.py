"""One measurement of a running server under a `Serve` workload."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from twofold.errors import NegativeAnswer
from twofold.evidence.serving.answers import Answer, Stretch
from twofold.evidence.serving.tails import percentile, queries_needed, safe_percentile
from twofold.host import EnergySource, find_energy_source
from twofold.host.description import virtualisation
from twofold.measure.load.client import Server, discover, session
from twofold.measure.load.drive import Driven, requests_for, unless_stopped
from twofold.measure.load.outcome import gaps_s, has_limits, outcome_of, percentiles
from twofold.measure.load.prompts import WORDS, prompts_of
from twofold.measure.load.watched import drive_watched
from twofold.measure.progress import Progress
from twofold.serving_outcome import Percentiles, ServingOutcome
from twofold.workload.requests import Request
from twofold.workload.serve import Serve

LARGEST_LAG_FRACTION = 0.05
"""A sender later than this share of the median TTFT is itself part of what was measured."""
LEAST_LAG_S = 0.002
"""Below the resolution of an event loop's timers nothing is said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlyStopping:
    """LoadGen's rule on the share of requests that met all targets, at 99 % confidence.

    `needed` requests, with as many over a limit as there were, show that at least `wanted` of
    all would be within.
    """

    wanted: float
    num_requests: int
    num_over: int
    needed: int

    @property
    def shown(self) -> bool:
        return self.num_requests >= self.needed


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What `twofold bench` found, with every request in `stretch`.

    `ttft_p90_bound_s` is LoadGen's estimate: the true 90th percentile exceeds it with a chance of
    at most 1 in 100. `short_answers` have fewer tokens than asked. `lag_p99_s` and `lag_max_s`
    are the sender's own lateness, and `sender` says what is wrong with it, if anything.
    """

    server: Server
    workload: Serve
    seed: int
    outcome: ServingOutcome
    itl_s: Percentiles | None
    ttft_p90_bound_s: float | None
    early_stopping: EarlyStopping | None
    num_sent: int
    errors: dict[str, int]
    short_answers: int
    lag_p99_s: float
    lag_max_s: float
    sender: str | None
    energy_why: str
    interrupted: bool
    stretch: Stretch

    @property
    def reached(self) -> bool:
        """Whether every request was answered, and as many met the targets as were to."""
        share = self.outcome.attained_fraction
        return not self.errors and (share is None or share >= self.workload.targets.attainment)


def bench(url: str, workload: Serve, *, seed: int, least_s: float, progress: Progress) -> Bench:
    """Send the workload's requests and judge the answers. Ctrl-C ends it and keeps what came, and
    is a KeyboardInterrupt where nothing had; NegativeAnswer where not one request was answered."""
    found = asyncio.run(_bench(url, workload, seed, least_s, progress))
    if found is None:
        raise KeyboardInterrupt
    return found


async def _bench(
    url: str, workload: Serve, seed: int, least_s: float, progress: Progress
) -> Bench | None:
    source = find_energy_source("cpu", virtual=virtualisation()["machine"] is not None)
    stop = asyncio.Event()
    with _stopped_by_signals(stop):
        async with session() as http:
            server = await unless_stopped(discover(http, url, list(WORDS)), stop)
            if server is None:
                return None
            requests = requests_for(workload, seed, least_s)
            progress.note(_intent(server, requests))
            driven, stretch = await drive_watched(
                http,
                server,
                workload,
                requests,
                prompts_of(requests, server, seed),
                arm=server.url,
                kind="rate" if workload.arrivals.rate_per_s else "offline",
                seed=seed,
                least_s=least_s,
                counter=source.counter,
                on_done=lambda done, total: progress.advance("requests", done, total),
                stop=stop,
            )
    if driven.interrupted and not any(answer.whole for answer in stretch.judged):
        return None
    return _judged(server, workload, requests, driven, stretch, source)


def _judged(
    server: Server,
    workload: Serve,
    requests: Sequence[Request],
    driven: Driven,
    stretch: Stretch,
    source: EnergySource,
) -> Bench:
    judged = stretch.judged
    errors = Counter(answer.error for answer in driven.answers if answer.error is not None)
    outcome = outcome_of(
        judged,
        workload.targets,
        open_loop=workload.arrivals.kind not in ("closed", "offline"),
        energy_j=stretch.energy_j,
        energy_grade=source.grade,
    )
    if outcome is None:
        said = errors.most_common(1)
        raise NegativeAnswer(
            f"not one of {len(driven.answers)} requests was answered"
            + (f": {said[0][0]}" if said else ""),
            at=server.url,
            help="check the server's log, and that its model is long enough for the workload",
        )
    whole = [answer for answer in judged if answer.whole]
    gaps = gaps_s(judged)
    lags_s = [answer.lag_s for answer in judged]
    return Bench(
        server=server,
        workload=workload,
        seed=stretch.seed,
        outcome=outcome,
        itl_s=percentiles(gaps) if gaps else None,
        ttft_p90_bound_s=safe_percentile([answer.ttft_s or 0.0 for answer in whole], 0.9),
        early_stopping=_early_stopping(judged, workload),
        num_sent=len(driven.answers),
        errors=dict(errors),
        short_answers=_num_short(driven.answers, requests),
        lag_p99_s=percentile(lags_s, 0.99),
        lag_max_s=max(lags_s),
        sender=_sender(percentile(lags_s, 0.99), outcome),
        energy_why=source.why,
        interrupted=driven.interrupted,
        stretch=stretch,
    )


def _early_stopping(judged: Sequence[Answer], workload: Serve) -> EarlyStopping | None:
    targets = workload.targets
    if not has_limits(targets):
        return None
    over = sum(not answer.meets(targets) for answer in judged)
    return EarlyStopping(
        wanted=targets.attainment,
        num_requests=len(judged),
        num_over=over,
        needed=queries_needed(over, targets.attainment),
    )


def _num_short(answers: Sequence[Answer], requests: Sequence[Request]) -> int:
    asked = [requests[number % len(requests)].output_tokens for number in range(len(answers))]
    return sum(a.whole and a.output_tokens < n for a, n in zip(answers, asked, strict=True))


def _sender(lag_p99_s: float, outcome: ServingOutcome) -> str | None:
    if lag_p99_s <= max(LEAST_LAG_S, LARGEST_LAG_FRACTION * outcome.ttft_s.p50):
        return None
    return (
        f"the sender itself was late (99th percentile {1e3 * lag_p99_s:.1f} ms): latencies are "
        "too high by as much; send from another machine, or ask for less"
    )


def _intent(server: Server, requests: Sequence[Request]) -> str:
    form = "token ids" if server.takes_ids else "text, so that input lengths are about as asked"
    return f"{server.model} at {server.url}: {len(requests)} requests, prompts as {form}"


@contextmanager
def _stopped_by_signals(stop: asyncio.Event) -> Iterator[None]:
    """Ctrl-C and SIGTERM end the sending instead of the process."""
    loop = asyncio.get_running_loop()
    signals = (signal.SIGINT, signal.SIGTERM)
    for number in signals:
        loop.add_signal_handler(number, stop.set)
    try:
        yield
    finally:
        for number in signals:
            loop.remove_signal_handler(number)
