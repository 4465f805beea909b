"""Answers in OpenAI's words: whole, and in chunks."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from twofold.runtime.serve.api.calls import Call
from twofold.runtime.serve.api.continuation import Scored
from twofold.runtime.serve.api.served import Served
from twofold.runtime.serve.messages import Finish, Logprobs


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int

    def body(self) -> dict[str, Any]:
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": self.cached_tokens},
        }


class Writer:
    """Bodies of one call: they share id, time and model."""

    def __init__(self, call: Call, served: Served) -> None:
        self._call = call
        self._tokeniser = served.tokeniser
        is_chat = call.kind == "chat"
        self._object = "chat.completion" if is_chat else "text_completion"
        self._head = {
            "id": ("chatcmpl-" if is_chat else "cmpl-") + uuid4().hex,
            "created": int(time.time()),
            "model": served.name,
        }

    def whole(self, choices: Sequence[dict[str, Any]], usage: Usage) -> dict[str, Any]:
        return {
            **self._head,
            "object": self._object,
            "choices": list(choices),
            "usage": usage.body(),
        }

    def choice(
        self, index: int, text: str, tokens: Sequence[Scored], finish: Finish | None
    ) -> dict[str, Any]:
        """One answer whole."""
        said: dict[str, Any] = (
            {"message": {"role": "assistant", "content": text}}
            if self._call.kind == "chat"
            else {"text": text}
        )
        return self._choice(index, said, tokens, finish)

    def chunk(
        self,
        index: int,
        text: str,
        tokens: Sequence[Scored],
        finish: Finish | None,
        *,
        is_first: bool,
    ) -> bytes:
        """Part of an answer, as a server-sent event."""
        said: dict[str, Any] = {"text": text}
        if self._call.kind == "chat":
            role = {"role": "assistant"} if is_first else {}
            said = {"delta": {**role, "content": text}}
        choice = self._choice(index, said, tokens, finish)
        usage = {"usage": None} if self._call.include_usage else {}
        return event({**self._chunk_head(), "choices": [choice], **usage})

    def usage_chunk(self, usage: Usage) -> bytes:
        return event({**self._chunk_head(), "choices": [], "usage": usage.body()})

    def _chunk_head(self) -> dict[str, Any]:
        kind = "chat.completion.chunk" if self._call.kind == "chat" else self._object
        return {**self._head, "object": kind}

    def _choice(
        self, index: int, said: dict[str, Any], tokens: Sequence[Scored], finish: Finish | None
    ) -> dict[str, Any]:
        choice = {"index": index, **said, "logprobs": None, "finish_reason": finish}
        if self._call.num_logprobs is not None:
            is_chat = self._call.kind == "chat"
            choice["logprobs"] = self._chat(tokens) if is_chat else self._lists(tokens)
        if self._call.return_token_ids:
            choice["token_ids"] = [scored.token for scored in tokens]
        return choice

    def _lists(self, tokens: Sequence[Scored]) -> dict[str, Any]:
        """Of completions: a list for each of token, own logprob, likeliest ones."""
        return {
            "tokens": [self._tokeniser.piece(scored.token) for scored in tokens],
            "token_logprobs": [_own(scored.logprobs) for scored in tokens],
            "top_logprobs": [
                None if scored.logprobs is None else self._top(scored.logprobs) for scored in tokens
            ],
        }

    def _top(self, logprobs: Logprobs) -> dict[str, float]:
        return {self._tokeniser.piece(token): _told(value) for token, value in logprobs.top}

    def _chat(self, tokens: Sequence[Scored]) -> dict[str, Any]:
        content = []
        for scored in tokens:
            top = () if scored.logprobs is None else scored.logprobs.top
            entry = self._entry(scored.token, _own(scored.logprobs))
            content.append({**entry, "top_logprobs": [self._entry(t, _told(v)) for t, v in top]})
        return {"content": content}

    def _entry(self, token: int, logprob: float | None) -> dict[str, Any]:
        piece = self._tokeniser.piece(token)
        return {"token": piece, "logprob": logprob, "bytes": None}


def event(body: dict[str, Any]) -> bytes:
    """One server-sent event."""
    return b"data: " + json.dumps(body, separators=(",", ":")).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"


def _own(logprobs: Logprobs | None) -> float | None:
    return None if logprobs is None else _told(logprobs.chosen)


def _told(logprob: float) -> float:
    """JSON has no infinity, and a token that cannot come has that logprob."""
    return max(_LEAST_LOGPROB, logprob)


_LEAST_LOGPROB = -9999.0
"""As vLLM tells it."""
