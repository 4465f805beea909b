"""What is served, as far as the front needs it: name, tokeniser, template, limits."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from twofold.runtime.serve.chat import Template, find_template
from twofold.runtime.serve.tokenisers import ByteTokeniser, Tokeniser, find_tokeniser
from twofold.serving_document import ServingDocument


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """`max_tokens` of prompt and answer together: the context, or the whole cache where that is
    less, or one step where prompts are not taken in parts."""

    name: str
    vocab: int
    max_tokens: int
    end_ids: frozenset[int]
    tokeniser: Tokeniser
    template: Template | None
    max_open: int
    created: int = field(default_factory=lambda: int(time.time()))

    def encode(self, text: str, *, special: bool) -> list[int]:
        return self.tokeniser.encode(text, special=special)


def describe(document: ServingDocument, *, num_blocks: int, max_queue: int) -> Served:
    """`max_queue` requests wait at most, beside those that run."""
    plan, model = document.plan, document.model
    weights = str(document.weights)
    tokeniser = find_tokeniser(weights, model)
    max_tokens = min(model.max_seq_len, num_blocks * plan.block_tokens)
    if not plan.chunked_prefill:
        max_tokens = min(max_tokens, plan.max_batched_tokens)
    return Served(
        name=model.name,
        vocab=model.vocab,
        max_tokens=max_tokens,
        end_ids=frozenset(id for id in tokeniser.end_ids if id < model.vocab),
        tokeniser=tokeniser,
        template=find_template(weights, plain=isinstance(tokeniser, ByteTokeniser)),
        max_open=plan.max_num_seqs + max_queue,
    )
