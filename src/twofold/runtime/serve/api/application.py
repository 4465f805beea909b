"""The routes."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from twofold.runtime.serve.api.answering import Part, answer
from twofold.runtime.serve.api.bodies import DONE, Usage, Writer, event
from twofold.runtime.serve.api.calls import Call, Kind, read_call
from twofold.runtime.serve.api.continuation import Scored
from twofold.runtime.serve.api.errors import ApiError
from twofold.runtime.serve.api.metrics import Metrics
from twofold.runtime.serve.api.responses import EventStream, unless_gone
from twofold.runtime.serve.api.served import Served
from twofold.runtime.serve.client import AnswerFailed, EngineClient, EngineGone
from twofold.runtime.serve.messages import Finish

MOST_BODY_BYTES = 32 * 2**20
_LARGE_BODY_BYTES = 2**16
_RETRY_AFTER_S = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Front:
    """What the routes share."""

    served: Served
    client: EngineClient
    metrics: Metrics


def make_application(front: Front, api_key: str | None) -> ASGIApp:
    """With an API key, everything under /v1 needs `Authorization: Bearer KEY`."""

    async def completions(request: Request) -> Response:
        return await _respond(front, "completion", request)

    async def chat_completions(request: Request) -> Response:
        return await _respond(front, "chat", request)

    async def models(_: Request) -> Response:
        return JSONResponse({"object": "list", "data": [_model_body(front.served)]})

    async def health(_: Request) -> Response:
        return Response(status_code=200 if front.client.failed is None else 503)

    async def metrics(_: Request) -> Response:
        return Response(front.metrics.text(), media_type="text/plain; version=0.0.4")

    application = Starlette(
        routes=[
            Route("/v1/completions", completions, methods=["POST"]),
            Route("/v1/chat/completions", chat_completions, methods=["POST"]),
            Route("/v1/models", models),
            Route("/health", health),
            Route("/metrics", metrics),
        ],
        exception_handlers={
            ApiError: _told,
            EngineGone: _engine_gone,
            AnswerFailed: _answer_failed,
            HTTPException: _no_route,
            ClientDisconnect: _nobody,
            Exception: _bug,
        },
    )
    return application if api_key is None else _Guard(application, api_key)


class _Guard:
    """Refuses what lies under /v1 without the key."""

    def __init__(self, application: ASGIApp, api_key: str) -> None:
        self._application = application
        self._expected = f"Bearer {api_key}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith("/v1"):
            given = dict(scope["headers"]).get(b"authorization", b"")
            if not hmac.compare_digest(given, self._expected):
                error = ApiError(
                    "an API key is needed: Authorization: Bearer KEY",
                    status=401,
                    code="invalid_api_key",
                )
                await error.response()(scope, receive, send)
                return
        await self._application(scope, receive, send)


async def _respond(front: Front, kind: Kind, request: Request) -> Response:
    call = await _call(kind, await _body(request), front.served)
    if front.client.num_open + len(call.prompts) > front.served.max_open:
        front.metrics.note_refused()
        raise ApiError(
            f"{front.client.num_open} requests are open, which is as many as are taken",
            status=429,
            code="queue_full",
            headers={"Retry-After": str(_RETRY_AFTER_S)},
        )
    writer = Writer(call, front.served)
    if call.stream:
        return EventStream(_events(front, call, writer))
    body = await unless_gone(request.receive, _whole(front, call, writer))
    return Response(status_code=499) if body is None else JSONResponse(body)


async def _call(kind: Kind, body: bytes, served: Served) -> Call:
    """A large one is read beside the event loop, which serves the others meanwhile."""
    if len(body) <= _LARGE_BODY_BYTES:
        return read_call(kind, body, served)
    return await asyncio.to_thread(read_call, kind, body, served)


async def _body(request: Request) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > MOST_BODY_BYTES:
            raise ApiError(
                f"the body is more than {MOST_BODY_BYTES} bytes", status=413, code="body_too_large"
            )
        parts.append(part)
    return b"".join(parts)


async def _whole(front: Front, call: Call, writer: Writer) -> dict[str, Any]:
    texts: list[list[str]] = [[] for _ in call.prompts]
    tokens: list[list[Scored]] = [[] for _ in call.prompts]
    finishes: list[Finish | None] = [None] * len(call.prompts)
    tally = _Tally(call)
    parts = answer(call, front.served, front.client, front.metrics)
    async for part in parts:
        tally.add(part)
        texts[part.index].append(part.text)
        tokens[part.index] += part.tokens
        finishes[part.index] = part.finish or finishes[part.index]
    choices = [
        writer.choice(index, "".join(texts[index]), tokens[index], finishes[index])
        for index in range(len(call.prompts))
    ]
    return writer.whole(choices, tally.usage())


async def _events(front: Front, call: Call, writer: Writer) -> AsyncGenerator[bytes]:
    tally = _Tally(call)
    parts = answer(call, front.served, front.client, front.metrics)
    try:
        async for part in parts:
            is_first = tally.add(part)
            yield writer.chunk(part.index, part.text, part.tokens, part.finish, is_first=is_first)
        if call.include_usage:
            yield writer.usage_chunk(tally.usage())
        yield DONE
    except EngineGone:
        yield event(_gone_error().body())
    except AnswerFailed as error:
        yield event(_failed_error(error).body())
    finally:
        await parts.aclose()


class _Tally:
    """Counts of one call, for its usage."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._started: set[int] = set()
        self._completion_tokens = 0
        self._cached_tokens = 0

    def add(self, part: Part) -> bool:
        """Whether it is the first of its answer."""
        is_first = part.index not in self._started
        self._started.add(part.index)
        self._completion_tokens += self._call.max_new_tokens[part.index] > 0
        self._cached_tokens += part.cached_tokens
        return is_first

    def usage(self) -> Usage:
        return Usage(
            prompt_tokens=sum(map(len, self._call.prompts)),
            completion_tokens=self._completion_tokens,
            cached_tokens=self._cached_tokens,
        )


def _model_body(served: Served) -> dict[str, Any]:
    return {
        "id": served.name,
        "object": "model",
        "created": served.created,
        "owned_by": "twofold",
        "max_model_len": served.max_tokens,
        "vocab_size": served.vocab,
    }


async def _told(_: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return error.response()


def _gone_error() -> ApiError:
    return ApiError("the engine has stopped", status=500, code="engine_stopped")


async def _engine_gone(_: Request, error: Exception) -> Response:
    return _gone_error().response()


def _failed_error(error: Exception) -> ApiError:
    return ApiError(f"this answer failed: {error}", status=500, code="answer_failed")


async def _answer_failed(_: Request, error: Exception) -> Response:
    return _failed_error(error).response()


async def _no_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = f"{request.method} {request.url.path}: {error.detail}"
    return ApiError(message, status=error.status_code, headers=dict(error.headers or {})).response()


async def _nobody(_: Request, error: Exception) -> Response:
    """The client went away while it sent its body."""
    return Response(status_code=499)


async def _bug(_: Request, error: Exception) -> Response:
    """Ours; the server's log has the traceback."""
    return ApiError(f"internal error: {type(error).__name__}", status=500).response()
