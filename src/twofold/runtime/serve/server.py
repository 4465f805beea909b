"""Front and engine together: start, listen, drain, end."""

from __future__ import annotations

import asyncio
import json
import resource
import signal
import socket
from pathlib import Path
from types import FrameType

import uvicorn

from twofold.errors import EnvironmentLack, InputError
from twofold.runtime.serve.api.application import Front, make_application
from twofold.runtime.serve.api.metrics import Metrics
from twofold.runtime.serve.api.served import describe
from twofold.runtime.serve.client import EngineClient, as_error
from twofold.runtime.serve.messages import Ready
from twofold.serving_document import read_serving_plan

_BACKLOG = 2048
_DRAIN_S = 600
"""A client that does not read its answer must not keep the server for ever."""


async def serve(
    path: Path,
    *,
    host: str,
    port: int,
    max_queue: int,
    api_key: str | None,
    step_log: Path | None = None,
) -> int:
    """Until a signal ends it: the exit code. Raises where it cannot start."""
    document = read_serving_plan(path)
    metrics = Metrics(document.model.name)
    with _listening(host, port) as listener:
        client = EngineClient(path, on_step=metrics.note_step, step_log=step_log)
        try:
            ready = await _loaded(client)
            if ready is None:
                return 0
            served = describe(document, num_blocks=ready.num_blocks, max_queue=max_queue)
            front = Front(served=served, client=client, metrics=metrics)
            server = Server(make_application(front, api_key))
            client.on_end = server.stop
            address, bound = listener.getsockname()[:2]
            server.says = json.dumps(
                {
                    "event": "listening",
                    "url": f"http://{f'[{address}]' if ':' in address else address}:{bound}",
                    "model": served.name,
                    "max_model_len": served.max_tokens,
                    "num_blocks": ready.num_blocks,
                    "device": ready.device,
                }
            )
            code = await server.run_until_signal(listener)
            if client.failed is not None:
                raise as_error(client.failed)
            return code
        finally:
            client.close()


async def _loaded(client: EngineClient) -> Ready | None:
    """None where SIGTERM comes before the weights are loaded. (Ctrl-C is asyncio's.)"""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    ready = asyncio.ensure_future(client.ready())
    loop.add_signal_handler(signal.SIGTERM, ready.cancel)
    try:
        return await ready
    except asyncio.CancelledError:
        if task.cancelling():
            raise
        return None
    finally:
        loop.remove_signal_handler(signal.SIGTERM)


class Server(uvicorn.Server):
    """Uvicorn, with Twofold's exit codes and one line once it listens."""

    def __init__(self, application: object) -> None:
        super().__init__(
            uvicorn.Config(
                application,  # type: ignore[arg-type]
                log_level="warning",
                access_log=False,
                lifespan="off",
                backlog=_BACKLOG,
                timeout_graceful_shutdown=_DRAIN_S,
            )
        )
        self.says = ""
        self._signal: int | None = None

    async def run_until_signal(self, listener: socket.socket) -> int:
        """0 after SIGTERM, 130 after Ctrl-C."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._note)
        await self.serve(sockets=[listener])
        return 130 if self._signal == signal.SIGINT else 0

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        print(self.says, flush=True)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The second signal of any kind does not wait for open answers."""
        if self.should_exit:
            self.force_exit = True
        super().handle_exit(sig, frame)

    def stop(self) -> None:
        self.should_exit = True

    def _note(self, number: int, frame: FrameType | None) -> None:
        """Uvicorn raises the signals it took again, once it has shut down."""
        self._signal = number


def _listening(host: str, port: int) -> socket.socket:
    """Bound, so that a port that is taken is told before the weights are loaded."""
    _allow_many_files()
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (socket.gaierror, OverflowError) as error:
        raise InputError(
            f"there is no address '{host}': {error}", at="--host", help="use 127.0.0.1"
        ) from error
    # With the protocol named asyncio turns Nagle's algorithm off: else a first token waits 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise EnvironmentLack(
            f"port {port} of {host} cannot be taken: {error.strerror}",
            at="--port",
            help="use another, or 0 for any that is free",
        ) from error
    return listener


def _allow_many_files() -> None:
    """A connection is an open file, and the usual soft limit is 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = hard if hard != resource.RLIM_INFINITY else 2**20
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
