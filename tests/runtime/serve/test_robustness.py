"""A thousand connections, clients that vanish, ten thousand requests: nothing breaks or leaks."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path
from random import Random

import pytest

pytest.importorskip("torch")
pytest.importorskip("uvicorn")
import httpx

from tests.runtime.serve.documents import serving_document
from tests.runtime.serve.servers import Running, serving
from twofold.host.limits import meminfo_bytes


async def ask(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, body: dict[str, object]
) -> int:
    """One request on a connection of its own, to its end: the status."""
    raw = json.dumps(body).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(raw)}\r\n"
    writer.write(head.encode() + b"Connection: close\r\n\r\n" + raw)
    await writer.drain()
    status = int((await reader.readline()).split()[1])
    await reader.read()
    writer.close()
    return status


async def at_once(url: str, number: int) -> list[int]:
    """All are connected before the first one asks."""
    host, port = url.removeprefix("http://").split(":")
    pairs = [await asyncio.open_connection(host, int(port)) for _ in range(number)]
    body = {"prompt": "hello", "max_tokens": 4, "ignore_eos": True}
    return list(await asyncio.gather(*(ask(*pair, body) for pair in pairs)))


async def vanish(url: str, number: int, random: Random) -> None:
    """Streams that are left after a few chunks, some before the first."""

    async def one(client: httpx.AsyncClient) -> None:
        body = {"prompt": "x", "max_tokens": 400, "stream": True, "ignore_eos": True}
        async with client.stream("POST", url + "/v1/completions", json=body) as got:
            left = random.randrange(4)
            async for _ in got.aiter_lines():
                left -= 1
                if left < 0:
                    return

    limits = httpx.Limits(max_connections=number)
    async with httpx.AsyncClient(limits=limits, timeout=120) as client:
        await asyncio.gather(*(one(client) for _ in range(number)))


def resident_bytes(running: Running) -> int:
    """Of the server and its engine."""
    parent = running.process.pid
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    pages = 0
    for pid in (str(parent), *children):
        pages += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def metric(running: Running, name: str) -> float:
    text = httpx.get(running.url + "/metrics").text
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name + "{"))


@pytest.mark.slow
def test_fifty_connections_at_once_and_clients_that_vanish(tmp_path: Path) -> None:
    with serving(serving_document(), tmp_path) as server:
        assert asyncio.run(at_once(server.url, 50)) == [200] * 50
        asyncio.run(vanish(server.url, 20, Random(1)))
        assert asyncio.run(at_once(server.url, 4)) == [200] * 4
        assert metric(server, "vllm:kv_cache_usage_perc") == 0
        assert server.stop() == 0


@pytest.mark.verify
def test_a_thousand_connections_at_once(tmp_path: Path) -> None:
    with serving(serving_document(), tmp_path) as server:
        assert asyncio.run(at_once(server.url, 1000)) == [200] * 1000
        asyncio.run(vanish(server.url, 200, Random(2)))
        assert asyncio.run(at_once(server.url, 4)) == [200] * 4
        assert server.stop() == 0


@pytest.mark.verify
@pytest.mark.skipif(meminfo_bytes("MemTotal") is None, reason="needs /proc")
def test_ten_thousand_requests_leave_no_memory_behind(tmp_path: Path) -> None:
    """Some of them vanish, some are refused. Memory after the first tenth is what later ones may
    not exceed by more than 3 %; the whole series is written beside the plan."""
    series: list[tuple[int, int]] = []
    with serving(serving_document(), tmp_path, "--max-queue", "60") as server:
        for done in range(0, 10_000, 500):
            statuses = asyncio.run(at_once(server.url, 450))
            assert set(statuses) <= {200, 429}
            asyncio.run(vanish(server.url, 50, Random(done)))
            series.append((done + 500, resident_bytes(server)))
        assert server.stop() == 0
    rows = "\n".join(f"{done},{resident}" for done, resident in series)
    (tmp_path / "memory.csv").write_text("requests,resident_bytes\n" + rows + "\n")
    settled = series[1][1]
    assert max(resident for _, resident in series[2:]) < 1.03 * settled


@pytest.mark.slow
def test_an_engine_that_dies_is_told_to_clients_and_ends_the_server(tmp_path: Path) -> None:
    body = {"prompt": "x", "max_tokens": 480, "stream": True, "ignore_eos": True}
    with serving(serving_document(), tmp_path) as server:
        engine = next(
            int(pid)
            for pid in Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
            .read_text()
            .split()
            if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
        )
        with httpx.stream("POST", server.url + "/v1/completions", json=body, timeout=60) as got:
            lines = got.iter_lines()
            next(lines)
            os.kill(engine, signal.SIGKILL)
            events = [line for line in lines if line]
        assert json.loads(events[-1].removeprefix("data: "))["error"]["code"] == "engine_stopped"
        assert server.process.wait(timeout=30) == 3
