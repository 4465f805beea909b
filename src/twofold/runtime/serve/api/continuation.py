"""The text of one answer as its tokens come: whole characters, cut at the first stop string."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from twofold.runtime.serve.messages import Finish, Logprobs, Token
from twofold.runtime.serve.tokenisers import Tokeniser


class Scored(NamedTuple):
    """A token that is told with its logprobs; None for the first of a prompt, which has none."""

    token: int
    logprobs: Logprobs | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """What one token adds. `text` may be empty: half a character, or the beginning of what may
    become a stop string, is held back."""

    text: str
    token: int
    logprobs: Logprobs | None
    finish: Finish | None


class Continuation:
    """Stop strings are looked for once `min_new_tokens` have come. An end token has no text."""

    def __init__(
        self,
        tokeniser: Tokeniser,
        *,
        stop: Sequence[str],
        stop_ids: frozenset[int],
        min_new_tokens: int,
    ) -> None:
        self._stream = tokeniser.stream()
        self._stop = stop
        self._stop_ids = stop_ids
        self._min_new_tokens = min_new_tokens
        self._held = ""
        self.num_tokens = 0

    def add(self, token: Token) -> Piece:
        self.num_tokens += 1
        ends_text = token.finish == "stop" and token.token in self._stop_ids
        text = self._held + ("" if ends_text else self._stream.add(token.token))
        if token.finish is not None:
            text += self._stream.finish()
        looks = bool(self._stop) and self.num_tokens > self._min_new_tokens
        found = min((at for at in map(text.find, self._stop) if at >= 0), default=-1)
        if looks and found >= 0:
            self._held = ""
            return self._piece(text[:found], token, "stop")
        held = 0 if token.finish is not None or not looks else _beginning(text, self._stop)
        self._held = text[len(text) - held :]
        return self._piece(text[: len(text) - held], token, token.finish)

    def _piece(self, text: str, token: Token, finish: Finish | None) -> Piece:
        return Piece(text=text, token=token.token, logprobs=token.logprobs, finish=finish)


def _beginning(text: str, stops: Sequence[str]) -> int:
    """How many of the last characters may be the beginning of a stop string."""
    longest = min(len(text), max(map(len, stops)) - 1)
    for length in range(longest, 0, -1):
        tail = text[len(text) - length :]
        if any(stop.startswith(tail) for stop in stops):
            return length
    return 0
