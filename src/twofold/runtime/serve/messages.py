"""What the HTTP front and the engine's process say to each other. Token ids only, no text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from twofold.errors import JobFailed

Finish = Literal["stop", "length"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Tokens to continue, and how. `temperature` 0 is greedy; `top_k` 0 and `top_p` 1 cut nothing.

    It ends at `max_new_tokens`, or at one of `stop_ids` once it has `min_new_tokens`; until then
    those cannot be drawn. With a `seed` its tokens do not depend on what else is in the batch
    beyond rounding. `num_logprobs` (None: no logprobs) of the likeliest tokens are told beside each
    token; with `scores_prompt` also those of the prompt.
    """

    id: int
    prompt: tuple[int, ...]
    max_new_tokens: int
    min_new_tokens: int = 0
    stop_ids: frozenset[int] = frozenset()
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int | None = None
    num_logprobs: int | None = None
    scores_prompt: bool = False


@dataclass(frozen=True, slots=True)
class Cancel:
    """Nobody waits for this request any more."""

    id: int


class Logprobs(NamedTuple):
    """Of one token: its own natural logarithm of probability, and those of the likeliest."""

    chosen: float
    top: tuple[tuple[int, float], ...]


class Token(NamedTuple):
    """The next token of a request. `cached_tokens` and `queued_s` come with the first."""

    id: int
    token: int
    finish: Finish | None
    logprobs: Logprobs | None
    prompt_logprobs: tuple[Logprobs, ...] | None
    cached_tokens: int
    queued_s: float


class Counts(NamedTuple):
    """How the engine stands after a step; totals since its start."""

    running: int
    waiting: int
    kv_used_fraction: float
    preemptions: int
    prefix_queries: int
    prefix_hits: int
    steps: int


class Failure(NamedTuple):
    """A request that ended without its answer, alone: the others go on."""

    id: int
    what: str


class Stepped(NamedTuple):
    """What a step gave; without tokens, that the last open request was cancelled, or that one
    could not be taken."""

    tokens: list[Token]
    counts: Counts
    failures: tuple[Failure, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """The weights are loaded and the cache is taken."""

    num_blocks: int
    device: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """The engine has ended. Fields as of a `TwofoldError`."""

    what: str
    at: str | None = None
    help: str | None = None
    exit_code: int = JobFailed.exit_code
