"""One server behind an OpenAI-compatible URL: what it is, and one streamed request to it."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from twofold.errors import EnvironmentLack, InputError
from twofold.measure.load.stream import Event

if TYPE_CHECKING:
    import aiohttp

Api = Literal["completions", "chat"]
Prompt = str | list[int]

_PROBE_S = 60.0
_LONGEST_LINE_BYTES = 1 << 22
_KEPT_S = 4.0
"""Below the 5 s after which uvicorn, and so vLLM and ours, closes an idle connection: a request
sent at that moment would be lost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """`takes_ids`: prompts may be lists of token ids, so that their lengths are exact. Where not,
    `tokens_per_word` says how many the server makes of a word of `prompts.WORDS` and
    `tokens_around` how many it adds."""

    url: str
    model: str
    api: Api
    takes_ids: bool
    tokens_per_word: float = 1.0
    tokens_around: float = 0.0
    max_model_tokens: int | None = None


@asynccontextmanager
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    """As many connections as requests, kept open between them; a key is taken from
    OPENAI_API_KEY."""
    aiohttp = _aiohttp()
    key = os.environ.get("OPENAI_API_KEY")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEPT_S)
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)
    async with aiohttp.ClientSession(
        headers=headers,
        connector=connector,
        timeout=timeout,
        read_bufsize=_LONGEST_LINE_BYTES,
    ) as opened:
        yield opened


async def connect(http: aiohttp.ClientSession, server: Server, number: int) -> None:
    """Open so many connections and keep them, by asking all at once what is served: a request
    that is timed then does not wait for its connection. What they answer does not matter."""
    aiohttp = _aiohttp()

    async def ask() -> None:
        with suppress(aiohttp.ClientError, TimeoutError, OSError):
            async with http.get(
                f"{server.url}/v1/models", timeout=aiohttp.ClientTimeout(total=_PROBE_S)
            ) as response:
                await response.read()

    await asyncio.gather(*(ask() for _ in range(number)))


async def send(
    http: aiohttp.ClientSession, url: str, body: dict[str, Any], events: list[Event]
) -> str | None:
    """Add the events of the streamed answer as they arrive (`time.perf_counter`); the error."""
    aiohttp = _aiohttp()
    clock = time.perf_counter
    try:
        async with http.post(url, json=body) as response:
            if response.status != 200:
                return f"HTTP {response.status}: {(await response.text())[:300]}"
            async for line in response.content:
                if line.startswith(b"data:"):
                    events.append((clock(), line[5:].strip()))
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
        return f"{type(error).__name__}: {error}"[:300]
    return None


def body_of(
    server: Server,
    prompt: Prompt,
    output_tokens: int,
    *,
    seed: int,
    logprobs: int | None = None,
    exact_length: bool = True,
) -> dict[str, Any]:
    """A greedy request for so many tokens. `ignore_eos` and `min_tokens` are vLLM's names; a
    server that does not know them may stop sooner, and usage then says so."""
    body: dict[str, Any] = {
        "model": server.model,
        "max_tokens": output_tokens,
        "temperature": 0,
        "seed": seed,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if exact_length:
        body |= {"ignore_eos": True, "min_tokens": output_tokens}
    if server.api == "chat":
        body["messages"] = [{"role": "user", "content": prompt}]
        if logprobs is not None:
            body |= {"logprobs": True, "top_logprobs": logprobs}
    else:
        body["prompt"] = prompt
        if logprobs is not None:
            body |= {"logprobs": logprobs, "return_token_ids": True}
    return body


def address(server: Server) -> str:
    return f"{server.url}/v1/{'chat/' if server.api == 'chat' else ''}completions"


async def discover(http: aiohttp.ClientSession, url: str, words: list[str]) -> Server:
    """Ask the server what it serves and which forms of prompt it takes, with a few one-token
    requests that are no part of any measurement."""
    url = url.rstrip("/").removesuffix("/v1")
    model, longest = await _model(http, url)
    server = Server(
        url=url, model=model, api="completions", takes_ids=True, max_model_tokens=longest
    )
    status, said = await _probe(http, server, [65] * 8)
    if status == 200 and _prompt_tokens(said) in (None, 8):
        return server
    for api in ("completions", "chat"):
        counted = []
        server = Server(url=url, model=model, api=api, takes_ids=False, max_model_tokens=longest)
        for number in (8, 64):
            status, said = await _probe(http, server, " ".join(words[:number]))
            counted.append(_prompt_tokens(said) if status == 200 else None)
        few, many = counted
        if status == 200:
            if few is None or many is None or many <= few:
                return server
            each = (many - few) / 56
            return Server(
                url=url,
                model=model,
                api=api,
                takes_ids=False,
                tokens_per_word=each,
                tokens_around=few - 8 * each,
                max_model_tokens=longest,
            )
    raise EnvironmentLack(
        f"the server refuses a request for one token: {status} {json.dumps(said)[:300]}",
        at=url,
        help="check that it serves /v1/completions or /v1/chat/completions, and OPENAI_API_KEY",
    )


async def _model(http: aiohttp.ClientSession, url: str) -> tuple[str, int | None]:
    aiohttp = _aiohttp()
    try:
        async with http.get(
            f"{url}/v1/models", timeout=aiohttp.ClientTimeout(total=_PROBE_S)
        ) as response:
            status, said = response.status, await response.json(content_type=None)
    except aiohttp.InvalidURL as error:
        raise InputError(
            f"'{url}' is no URL", at="URL", help="for example http://localhost:8000"
        ) from error
    except TimeoutError as error:
        raise _silent(f"{url}/v1/models") from error
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise EnvironmentLack(
            f"no answer from the server: {error or type(error).__name__}",
            at=f"{url}/v1/models",
            help="start it first, for example: twofold serve serve.json",
        ) from error
    try:
        first = said["data"][0]
        return str(first["id"]), first.get("max_model_len")
    except (AttributeError, TypeError, KeyError, IndexError) as error:
        raise EnvironmentLack(
            f"the server names no model (HTTP {status}: {str(said)[:200]})",
            at=f"{url}/v1/models",
            help="check the URL, and OPENAI_API_KEY where it asks for a key",
        ) from error


async def _probe(
    http: aiohttp.ClientSession, server: Server, prompt: Prompt
) -> tuple[int, dict[str, Any]]:
    aiohttp = _aiohttp()
    body = body_of(server, prompt, 1, seed=0, exact_length=False) | {"stream": False}
    body.pop("stream_options")
    try:
        async with http.post(
            address(server), json=body, timeout=aiohttp.ClientTimeout(total=_PROBE_S)
        ) as response:
            said = await response.json(content_type=None)
            return response.status, said if isinstance(said, dict) else {}
    except TimeoutError as error:
        raise _silent(address(server)) from error
    except (aiohttp.ClientError, OSError, ValueError) as error:
        return 0, {"error": f"{type(error).__name__}: {error}"}


def _silent(at: str) -> EnvironmentLack:
    return EnvironmentLack(
        f"no answer from the server: it took the request and said nothing for {_PROBE_S:.0f} s",
        at=at,
        help="check that this is the server's port, and the server's log",
    )


def _prompt_tokens(said: dict[str, Any]) -> int | None:
    usage = said.get("usage")
    count = usage.get("prompt_tokens") if isinstance(usage, dict) else None
    return count if isinstance(count, int) else None


def _aiohttp() -> Any:
    try:
        import aiohttp
    except ImportError as error:
        raise EnvironmentLack(
            "aiohttp is not installed, which sends the requests",
            help="pip install 'twofold[serve]'",
        ) from error
    return aiohttp
