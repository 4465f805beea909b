"""A real OpenAI-compatible server of a few lines, whose answers and delays are known.

A step takes `step_s` and yields one token to every running request; at most `slots` run at once.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web


@dataclass(slots=True)
class SmallServer:
    step_s: float = 0.004
    slots: int = 8
    takes_ids: bool = True
    chat_only: bool = False
    fail_every: int = 0
    stall_s: float = 0.0
    bodies: list[dict[str, Any]] = field(default_factory=list)
    connections: list[tuple[str, int]] = field(default_factory=list)
    """Path of each request, and the client's port: equal ports are one connection."""
    running: asyncio.Semaphore | None = None

    def app(self) -> web.Application:
        self.running = asyncio.Semaphore(self.slots)
        app = web.Application(middlewares=[self.note])
        app.router.add_get("/v1/models", self.models)
        if not self.chat_only:
            app.router.add_post("/v1/completions", self.complete)
        app.router.add_post("/v1/chat/completions", self.complete)
        return app

    @web.middleware
    async def note(self, request: web.Request, handler: Any) -> web.StreamResponse:
        assert request.transport is not None
        self.connections.append((request.path, request.transport.get_extra_info("peername")[1]))
        response: web.StreamResponse = await handler(request)
        return response

    async def models(self, request: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "small", "max_model_len": 512}]})

    async def complete(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.bodies.append(body)
        chat = "messages" in body
        prompt = body["messages"][0]["content"] if chat else body["prompt"]
        if not self.takes_ids and isinstance(prompt, list):
            return web.json_response({"error": {"message": "text only"}}, status=400)
        if self.fail_every and len(self.bodies) % self.fail_every == 0:
            return web.json_response({"error": {"message": "queue full"}}, status=429)
        tokens = len(prompt) if isinstance(prompt, list) else 3 + 2 * len(prompt.split())
        usage = {"prompt_tokens": tokens, "completion_tokens": body["max_tokens"]}
        if not body.get("stream"):
            return web.json_response({"choices": [{"text": "x", "index": 0}], "usage": usage})
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        assert self.running is not None
        async with self.running:
            if self.stall_s:
                await asyncio.sleep(self.stall_s)
            if chat:
                await self._event(response, {"delta": {"role": "assistant"}})
            for number in range(body["max_tokens"]):
                await asyncio.sleep(self.step_s)
                await self._event(response, self._choice(body, number, chat=chat))
        await self._send(response, {"choices": [], "usage": usage})
        await response.write(b"data: [DONE]\n\n")
        return response

    def _choice(self, body: dict[str, Any], number: int, *, chat: bool) -> dict[str, Any]:
        token = f"t{number}"
        if chat:
            return {"delta": {"content": token}}
        choice: dict[str, Any] = {"text": token}
        if body.get("logprobs"):
            choice["token_ids"] = [number]
            choice["logprobs"] = {"top_logprobs": [{token: -0.1, "other": -2.5}]}
        return choice

    async def _event(self, response: web.StreamResponse, choice: dict[str, Any]) -> None:
        await self._send(response, {"choices": [{"index": 0, "finish_reason": None, **choice}]})

    async def _send(self, response: web.StreamResponse, event: dict[str, Any]) -> None:
        await response.write(b"data: " + json.dumps(event).encode() + b"\n\n")


@asynccontextmanager
async def serving(server: SmallServer) -> AsyncIterator[str]:
    """Its URL while it runs, in the event loop of whoever asks."""
    runner = web.AppRunner(server.app())
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        host, port = site._server.sockets[0].getsockname()[:2]  # type: ignore[union-attr]
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()


@contextmanager
def serving_beside(server: SmallServer) -> Iterator[str]:
    """Its URL while it runs, in an event loop of a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    running = serving(server)
    try:
        yield asyncio.run_coroutine_threadsafe(running.__aenter__(), loop).result()
    finally:
        asyncio.run_coroutine_threadsafe(running.__aexit__(None, None, None), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
