"""Equal quality, asked of the servers themselves: greedy answers and held-out loss."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import aiohttp
import numpy as np
from numpy.typing import NDArray

from twofold.evidence.serving.records import Transcript
from twofold.measure.load.client import Prompt, Server
from twofold.measure.load.drive import drive
from twofold.measure.load.prompts import prompts_of
from twofold.measure.load.stream import Told
from twofold.measure.serving.experiment import AnswerSpec
from twofold.workload.requests import draw_requests
from twofold.workload.serve import Arrivals, Lengths, Serve

USERS = 5
"""Answers are asked for by so many at once, so that batches have many shapes."""
_SEED = 7

Tokens = NDArray[np.unsignedinteger]


async def transcripts_of(
    http: aiohttp.ClientSession,
    server: Server,
    arm: str,
    spec: AnswerSpec,
    text: Tokens | None,
) -> tuple[list[Transcript], str | None]:
    """One a prompt, and what went wrong, if anything."""
    workload = Serve(
        arrivals=Arrivals(kind="closed", users=USERS),
        input=Lengths(mean=32, spread=0.5, least=8, most=96),
        output=Lengths(mean=spec.tokens),
        num_requests=spec.prompts,
    )
    requests = draw_requests(workload, _SEED)
    prompts = prompts_of(requests, server, _SEED, text)
    driven = await drive(http, server, workload, requests, prompts, seed=_SEED, logprobs=2)
    failed = [a.error for a in driven.answers if a.error is not None]
    if failed:
        return [], f"'{arm}' did not give greedy answers with log probabilities: {failed[0]}"
    return [
        _transcript(arm, number, told)
        for number, told in enumerate(driven.told)
        if told is not None
    ], None


def _transcript(arm: str, prompt: int, told: Told) -> Transcript:
    tokens: tuple[int | str, ...] = told.token_ids or tuple(told.text)
    gaps: list[float] = []
    if told.token_ids:  # gaps belong to tokens, which characters are not
        for top in told.top_logprobs:
            gaps.append(round(top[0][1] - top[1][1], 7) if len(top) > 1 else 0.0)
    return Transcript(arm=arm, prompt=prompt, tokens=tokens, gaps=tuple(gaps))


async def held_out_losses(
    http: aiohttp.ClientSession, server: Server, spec: AnswerSpec, text: Tokens
) -> list[float]:
    """Nats per token of windows of held-out text, by the server's own log probabilities of the
    prompt; empty where it does not give them."""
    losses = []
    for window in _windows(text, spec):
        loss = await _loss(http, server, window)
        if loss is None:
            return []
        losses.append(loss)
    return losses


def _windows(text: Tokens, spec: AnswerSpec) -> Sequence[Prompt]:
    stride = max(spec.window_tokens, len(text) // spec.windows)
    starts = [i * stride for i in range(spec.windows)]
    cut = [[int(t) for t in text[s : s + spec.window_tokens]] for s in starts]
    return [window for window in cut if len(window) == spec.window_tokens]


async def _loss(http: aiohttp.ClientSession, server: Server, window: Prompt) -> float | None:
    body: dict[str, Any] = {
        "model": server.model,
        "prompt": window,
        "max_tokens": 0,
        "echo": True,
        "logprobs": 1,
        "temperature": 0,
    }
    try:
        async with http.post(f"{server.url}/v1/completions", json=body) as response:
            if response.status != 200:
                return None
            said = await response.json(content_type=None)
        given = said["choices"][0]["logprobs"]["token_logprobs"]
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError, KeyError, TypeError):
        return None
    known = [value for value in given if value is not None]
    return -math.fsum(known) / len(known) if known else None
