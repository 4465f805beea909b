"""Prompts of the wanted number of tokens, alike where requests share a prefix."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from twofold.measure.load.client import Prompt, Server
from twofold.workload.requests import Request

WORDS = [
    "the",
    "of",
    "and",
    "to",
    "in",
    "is",
    "it",
    "you",
    "that",
    "he",
    "was",
    "for",
    "on",
    "are",
    "with",
    "as",
    "his",
    "they",
    "be",
    "at",
    "one",
    "have",
    "this",
    "from",
    "or",
    "had",
    "by",
    "hot",
    "but",
    "some",
    "what",
    "there",
    "we",
    "can",
    "out",
    "other",
    "were",
    "all",
    "your",
    "when",
    "up",
    "use",
    "word",
    "how",
    "said",
    "an",
    "each",
    "she",
    "which",
    "do",
    "their",
    "time",
    "if",
    "will",
    "way",
    "about",
    "many",
    "then",
    "them",
    "would",
    "write",
    "like",
    "so",
    "these",
    "her",
    "long",
    "make",
    "thing",
    "see",
    "him",
    "two",
    "has",
    "look",
    "more",
    "day",
    "could",
    "go",
    "come",
    "did",
    "my",
    "sound",
    "no",
    "most",
    "number",
    "who",
    "over",
    "know",
    "water",
    "than",
    "call",
    "first",
    "people",
    "may",
    "down",
    "side",
    "been",
    "now",
    "find",
    "any",
    "new",
    "work",
    "part",
]
"""Common English words, one or two tokens each in most vocabularies."""

FIRST_ID, LAST_ID = 32, 126
"""Token ids that are ordinary in every vocabulary met so far: no control token, and printable
characters where tokens are bytes."""


def prompts_of(
    requests: Sequence[Request],
    server: Server,
    seed: int,
    text: NDArray[np.unsignedinteger] | None = None,
    turn: int = 0,
) -> list[Prompt]:
    """One prompt a request. Token ids are cut from `text` (a token file), or drawn where there is
    none; words are drawn for a server that takes text alone. With another `turn` the shared
    beginnings stay and all the rest is new: nothing else may be found in a prefix cache."""
    random = np.random.default_rng([seed, 3, turn])
    prefixes: dict[int, list[int]] = {}
    prompts: list[Prompt] = []
    for request in requests:
        if server.takes_ids:
            shared = prefixes.setdefault(request.prefix, [])
            if len(shared) < request.prefix_tokens:
                own = np.random.default_rng([seed, 4, request.prefix])
                shared[:] = _ids(request.prefix_tokens, text, own)
            rest = _ids(request.input_tokens - request.prefix_tokens, text, random)
            prompts.append([*shared[: request.prefix_tokens], *rest])
        else:
            number = _num_words(request.input_tokens, server)
            num_shared = min(number, _num_words(request.prefix_tokens, server))
            own = np.random.default_rng([seed, 4, request.prefix])
            drawn = [*own.integers(len(WORDS), size=num_shared if request.prefix_tokens else 0)]
            drawn += [*random.integers(len(WORDS), size=number - len(drawn))]
            prompts.append(" ".join(WORDS[index] for index in drawn))
    return prompts


def _ids(
    number: int, text: NDArray[np.unsignedinteger] | None, random: np.random.Generator
) -> list[int]:
    if text is None:
        return [int(i) for i in random.integers(FIRST_ID, LAST_ID + 1, size=number)]
    start = int(random.integers(max(1, len(text) - number)))
    return [int(i) for i in text[start : start + number]]


def _num_words(tokens: int, server: Server) -> int:
    return max(1, round((tokens - server.tokens_around) / server.tokens_per_word))
