"""What a streamed answer said: server-sent events of an OpenAI-compatible server, read after the
clock has stopped, so that reading them costs the measurement nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from twofold.evidence.serving.answers import Answer

Event = tuple[float, bytes]
"""(arrival on the sender's clock, the event's data without `data: `)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """One whole answer. `top_logprobs` has, for each token, the most likely ones with their log
    probabilities, most likely first; empty where the server gives none."""

    text: str
    token_ids: tuple[int, ...]
    top_logprobs: tuple[tuple[tuple[str, float], ...], ...]
    finish_reason: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Chunk:
    time_s: float
    num_tokens: int
    choice: dict[str, Any]


def answer_of(
    events: Sequence[Event],
    *,
    intended_s: float,
    sent_s: float,
    end_s: float,
    asked_input_tokens: int,
    error: str | None,
) -> Answer:
    """The answer as a sample. Without usage, tokens are counted as chunks that held one."""
    chunks, usage, said = _read(events)
    held = [chunk for chunk in chunks if chunk.num_tokens]
    error = error or said
    if error is None and not held:
        error = "no token came"
    details = usage.get("prompt_tokens_details") or {}
    return Answer(
        intended_s=_rounded(intended_s),
        sent_s=_rounded(sent_s),
        first_s=_rounded(held[0].time_s) if held else None,
        end_s=_rounded(held[-1].time_s if held and error is None else end_s),
        input_tokens=int(usage.get("prompt_tokens") or asked_input_tokens),
        output_tokens=int(usage.get("completion_tokens") or sum(c.num_tokens for c in held)),
        cached_tokens=details.get("cached_tokens"),
        error=error,
        chunks_s=tuple(_rounded(chunk.time_s) for chunk in held),
    )


def told_of(events: Sequence[Event]) -> Told:
    """What the answer was, for comparing answers."""
    chunks, _, _ = _read(events)
    text, finish = "", None
    ids: list[int] = []
    tops: list[tuple[tuple[str, float], ...]] = []
    for chunk in chunks:
        text += _text(chunk.choice)
        ids += chunk.choice.get("token_ids") or []
        finish = chunk.choice.get("finish_reason") or finish
        logprobs = chunk.choice.get("logprobs") or {}
        for top in logprobs.get("top_logprobs") or []:
            tops.append(tuple(sorted(top.items(), key=lambda pair: -pair[1])))
        for entry in logprobs.get("content") or []:
            tops.append(tuple((t["token"], t["logprob"]) for t in entry.get("top_logprobs", [])))
    return Told(text=text, token_ids=tuple(ids), top_logprobs=tuple(tops), finish_reason=finish)


def _read(events: Sequence[Event]) -> tuple[list[_Chunk], dict[str, Any], str | None]:
    """Chunks in order, the usage block, and the error that the server told within the stream."""
    chunks: list[_Chunk] = []
    usage: dict[str, Any] = {}
    for time_s, data in events:
        if data == b"[DONE]":
            continue
        try:
            event = json.loads(data)
        except ValueError:
            return chunks, usage, f"not JSON in the stream: {data[:80]!r}"
        if not isinstance(event, dict):
            return chunks, usage, f"not an object in the stream: {data[:80]!r}"
        if "error" in event:
            said = event["error"]
            return chunks, usage, str(said.get("message") if isinstance(said, dict) else said)
        usage = event.get("usage") or usage
        for choice in event.get("choices") or []:
            chunks.append(_Chunk(time_s=time_s, num_tokens=_num_tokens(choice), choice=choice))
    return chunks, usage, None


def _num_tokens(choice: dict[str, Any]) -> int:
    """Ids where the server gives them; else one where there is text. An unfinished character
    has no text yet: such a chunk of a completion holds a token unless it ends the answer."""
    if choice.get("token_ids") is not None:
        return len(choice["token_ids"])
    if _text(choice):
        return 1
    return int("text" in choice and choice.get("finish_reason") is None)


def _text(choice: dict[str, Any]) -> str:
    delta = choice.get("delta") or {}
    return str(choice.get("text") or delta.get("content") or delta.get("reasoning_content") or "")


def _rounded(time_s: float) -> float:
    """To a microsecond: finer than any clock here means something."""
    return round(time_s, 6)
