"""The load generator against a real server of known delays."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from tests.measure.load.small_server import SmallServer, serving
from twofold.errors import EnvironmentLack
from twofold.measure.load import client
from twofold.measure.load import drive as drive_module
from twofold.measure.load.client import Server, discover, session
from twofold.measure.load.drive import Driven, drive, requests_for, unless_stopped
from twofold.measure.load.prompts import WORDS, prompts_of
from twofold.workload.serve import Arrivals, Lengths, Serve, SharedPrefix

WORKLOAD = Serve(
    arrivals=Arrivals(rate_per_s=200.0),
    input=Lengths(mean=20, spread=0.4),
    output=Lengths(mean=6, spread=0.4, least=2),
    shared_prefix=SharedPrefix(tokens=8, count=2),
    num_requests=20,
)


def run(small: SmallServer, workload: Serve, *, least_s: float = 0.0) -> tuple[Server, Driven]:
    async def go() -> tuple[Server, Driven]:
        async with serving(small) as url, session() as http:
            server = await discover(http, url, list(WORDS))
            small.bodies.clear()
            requests = requests_for(workload, 1, least_s)
            prompts = prompts_of(requests, server, 1)
            return server, await drive(
                http, server, workload, requests, prompts, seed=1, least_s=least_s
            )

    return asyncio.run(go())


def test_lengths_are_as_asked_and_prefixes_shared() -> None:
    small = SmallServer()
    server, driven = run(small, WORKLOAD)
    requests = requests_for(WORKLOAD, 1, 0.0)
    assert server.takes_ids
    assert [a.input_tokens for a in driven.answers] == [r.input_tokens for r in requests]
    assert [a.output_tokens for a in driven.answers] == [r.output_tokens for r in requests]
    assert all(len(a.chunks_s) == a.output_tokens for a in driven.answers)
    beginnings = {tuple(body["prompt"][:8]) for body in small.bodies}
    assert len(beginnings) == 2
    assert all(body["ignore_eos"] for body in small.bodies)


def test_open_loop_counts_from_the_intended_time_though_the_server_stalls() -> None:
    """One slot of 50 ms: requests pile up, later ones wait longer, sending goes on in time."""
    workload = replace(WORKLOAD, arrivals=Arrivals(rate_per_s=400.0), num_requests=12)
    _, driven = run(SmallServer(slots=1, stall_s=0.05), workload)
    waits_s = [a.ttft_s or 0.0 for a in driven.answers]
    assert waits_s[-1] > 10 * 0.05
    arrivals_s = [r.arrival_s for r in requests_for(workload, 1, 0.0)]
    assert [a.intended_s for a in driven.answers] == pytest.approx(arrivals_s, abs=1e-6)
    assert max(a.lag_s for a in driven.answers) < 0.25 * waits_s[-1]


def test_closed_loop_never_has_more_out_than_users_and_goes_on_for_the_least_time() -> None:
    workload = replace(WORKLOAD, arrivals=Arrivals(kind="closed", users=3), num_requests=6)
    _, driven = run(SmallServer(), workload, least_s=0.3)
    assert len(driven.answers) > 6
    assert max(a.end_s for a in driven.answers) >= 0.3
    edges = sorted(
        [(a.sent_s, 1) for a in driven.answers] + [(a.end_s, -1) for a in driven.answers]
    )
    out = most = 0
    for _, change in edges:
        out += change
        most = max(most, out)
    assert most <= 3


@pytest.mark.parametrize("arrivals", [Arrivals(kind="closed", users=3), Arrivals(rate_per_s=200.0)])
def test_no_timed_request_waits_for_its_connection(arrivals: Arrivals) -> None:
    """Those that are out at once are fewer than the connections opened before the clock."""
    small = SmallServer()
    run(small, replace(WORKLOAD, arrivals=arrivals, num_requests=12))
    first = next(i for i, (path, _) in enumerate(small.connections) if i and "models" in path)
    opened = {port for path, port in small.connections[first:] if "models" in path}
    used = {port for path, port in small.connections[first:] if "completions" in path}
    assert used <= opened


def test_open_loop_lasts_as_long_as_asked() -> None:
    requests = requests_for(WORKLOAD, 1, 2.0)
    assert requests[-1].arrival_s >= 2.0
    assert len(requests) > 300


def test_offline_sends_all_at_once() -> None:
    workload = replace(WORKLOAD, arrivals=Arrivals(kind="offline"))
    _, driven = run(SmallServer(), workload)
    assert {a.intended_s for a in driven.answers} == {0.0}


def test_refusals_are_errors_of_their_request_alone() -> None:
    _, driven = run(SmallServer(fail_every=5), WORKLOAD)
    failed = [a for a in driven.answers if not a.whole]
    assert len(failed) == 4
    assert all(a.error and "429" in a.error and "queue full" in a.error for a in failed)


def test_a_server_that_takes_text_alone_gets_as_many_words_as_make_the_tokens() -> None:
    server, driven = run(SmallServer(takes_ids=False), WORKLOAD)
    assert not server.takes_ids
    assert (server.tokens_per_word, server.tokens_around) == pytest.approx((2.0, 3.0))
    for answer, request in zip(driven.answers, requests_for(WORKLOAD, 1, 0.0), strict=True):
        assert abs(answer.input_tokens - request.input_tokens) <= 1


def test_a_chat_server_is_measured_from_its_first_word_on() -> None:
    server, driven = run(SmallServer(chat_only=True, takes_ids=False), WORKLOAD)
    assert server.api == "chat"
    assert all(a.whole and len(a.chunks_s) == a.output_tokens for a in driven.answers)


def test_stopping_keeps_what_was_answered() -> None:
    async def go() -> Driven:
        async with serving(SmallServer(slots=1)) as url, session() as http:
            server = await discover(http, url, list(WORDS))
            requests = requests_for(WORKLOAD, 1, 0.0)
            stop = asyncio.Event()
            return await drive(
                http,
                server,
                WORKLOAD,
                requests,
                prompts_of(requests, server, 1),
                seed=1,
                stop=stop,
                on_done=lambda done, total: stop.set() if done == 3 else None,
            )

    driven = asyncio.run(go())
    assert driven.interrupted
    assert 3 <= len(driven.answers) < 20
    assert all(answer.whole for answer in driven.answers)


def test_nobody_there_is_said_with_what_to_do() -> None:
    async def go() -> None:
        async with session() as http:
            await discover(http, "http://127.0.0.1:9", list(WORDS))

    with pytest.raises(EnvironmentLack, match="no answer from the server"):
        asyncio.run(go())


@asynccontextmanager
async def silence() -> AsyncIterator[str]:
    """A server that takes connections and says nothing."""
    gone = asyncio.Event()

    async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await gone.wait()
        writer.close()

    server = await asyncio.start_server(hear, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    try:
        yield f"http://{host}:{port}"
    finally:
        gone.set()
        server.close()


def test_a_server_that_says_nothing_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    async def go() -> None:
        async with silence() as url, session() as http:
            await discover(http, url, list(WORDS))

    monkeypatch.setattr(client, "_PROBE_S", 0.2)
    with pytest.raises(EnvironmentLack, match="said nothing for") as told:
        asyncio.run(go())
    assert told.value.help


def test_asking_a_server_that_says_nothing_can_be_stopped() -> None:
    async def go() -> Server | None:
        stop = asyncio.Event()
        async with silence() as url, session() as http:
            asyncio.get_running_loop().call_later(0.05, stop.set)
            return await unless_stopped(discover(http, url, list(WORDS)), stop)

    assert asyncio.run(go()) is None


def test_a_run_goes_on_as_long_as_something_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    """No user ends, nor any answer, within the silence that ends a run; tokens come all along."""
    monkeypatch.setattr(drive_module, "_SILENT_S", 0.05)
    workload = replace(
        WORKLOAD,
        arrivals=Arrivals(kind="closed", users=2),
        output=Lengths(mean=60, least=60),
        num_requests=4,
    )
    _, driven = run(SmallServer(), workload)
    assert [answer.error for answer in driven.answers] == [None] * 4
