"""The engine: schedule, compute, choose tokens, tell them. It knows no text and no network."""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import blake2b
from random import Random

import torch
from torch import Tensor

from twofold.policy.batching import Entry, Limits, Scheduler, Sequence, Work
from twofold.runtime.serve.cache import KvCache
from twofold.runtime.serve.layout import Form, Layout, lay_out
from twofold.runtime.serve.messages import (
    Counts,
    Failure,
    Finish,
    Logprobs,
    Request,
    Stepped,
    Token,
)
from twofold.runtime.serve.network import ServingNetwork
from twofold.runtime.serve.sampling import Choice, Draw, choose, logprobs_of


@dataclass(slots=True, kw_only=True, eq=False)
class _Generation:
    """A request under way: all its tokens, where it stands, and when it came."""

    request: Request
    sequence: Sequence
    tokens: list[int]
    random: Random
    arrived_s: float
    started: bool = False
    queued_s: float = 0.0
    cached_tokens: int = 0
    prompt_logprobs: list[Logprobs] = field(default_factory=list)


class Engine:
    """Drives `policy.batching.Scheduler` over a network and its cache."""

    def __init__(self, network: ServingNetwork, cache: KvCache, limits: Limits) -> None:
        self.network = network
        self.cache = cache
        self.scheduler = Scheduler(limits)
        self._form = Form(
            block_tokens=limits.block_tokens,
            window=network.model.window,
            dtype=cache.keys.dtype,
            device=cache.keys.device,
        )
        self._open: dict[int, _Generation] = {}
        self._texts: dict[int, list[int]] = {}
        self._scored: set[int] = set()
        self._preemptions = self._prefix_queries = self._prefix_hits = self._steps = 0

    def add(self, request: Request) -> None:
        """Scored prompts are computed whole: found blocks have no logits. ValueError where it does
        not `fit`, and nothing is changed."""
        if not self.fits(request):
            raise ValueError(f"{len(request.prompt)} tokens and their answer do not fit the cache")
        scored = request.scores_prompt
        size = self.scheduler.limits.block_tokens
        caching = self.scheduler.limits.prefix_caching and not scored
        sequence = Sequence(
            id=request.id,
            prompt_tokens=len(request.prompt),
            max_new_tokens=request.max_new_tokens,
            prefix_keys=prefix_keys(request.prompt, size) if caching else (),
        )
        self._open[request.id] = _Generation(
            request=request,
            sequence=sequence,
            tokens=list(request.prompt),
            random=Random(request.seed),
            arrived_s=time.monotonic(),
        )
        self._texts[request.id] = self._open[request.id].tokens
        if scored:
            self._scored.add(request.id)
        self.scheduler.add(sequence)

    def fits(self, request: Request) -> bool:
        return self.scheduler.fits(len(request.prompt), request.max_new_tokens)

    def cancel(self, id: int) -> None:
        """Nothing happens where it has ended already."""
        if id in self._open:
            self.scheduler.drop(self._open[id].sequence)
            self._forget(id)

    @property
    def is_idle(self) -> bool:
        return not self._open

    @torch.inference_mode()
    def step(self) -> tuple[Stepped, Work]:
        """One step of the batch, to its end, and what it held."""
        batch = self.scheduler.schedule()
        assert batch.entries, "a step without a sequence"
        work = batch.work()
        self._steps += 1
        self._preemptions += len(batch.preempted)
        self._note_started(batch.entries)
        layout = lay_out(batch.entries, self._texts, self._scored, self._form)
        logits = self.network(layout, self.cache)
        if self._scored:
            logits = self._score_prompts(layout, logits)
        yielding = [self._open[e.sequence.id] for e in layout.entries if e.yields]
        told, failures = self._tell(yielding, choose(logits, list(map(_draw, yielding))))
        stopped = {token.id for token in told if token.finish == "stop"}
        stopped |= {failure.id for failure in failures}
        for sequence in self.scheduler.advance(batch, stopped=stopped):
            self._forget(sequence.id)
        return Stepped(told, self.counts(), tuple(failures)), work

    def _tell(
        self, yielding: list[_Generation], choices: list[Choice | Exception]
    ) -> tuple[list[Token], list[Failure]]:
        """Tokens, and who ends for a reason of its own."""
        told: list[Token] = []
        failures: list[Failure] = []
        for generation, choice in zip(yielding, choices, strict=True):
            if isinstance(choice, Exception):
                failures.append(failure_of(generation.request.id, choice))
            else:
                told.append(self._take(generation, choice.token, choice.logprobs))
        return told, failures

    def _note_started(self, entries: Iterable[Entry]) -> None:
        """Of those that were waiting: how long, and what of the prompt was found."""
        size = self.scheduler.limits.block_tokens
        for entry in entries:
            generation = self._open[entry.sequence.id]
            if generation.started:
                continue
            generation.started = True
            generation.queued_s = time.monotonic() - generation.arrived_s
            generation.cached_tokens = entry.sequence.cached
            self._prefix_queries += len(entry.sequence.prefix_keys) * size
            self._prefix_hits += entry.sequence.cached

    def _score_prompts(self, layout: Layout, logits: Tensor) -> Tensor:
        """Keep the logprobs of scored prompts' tokens; returns the rows of what yields."""
        kept: list[int] = []
        row = 0
        for entry in layout.entries:
            sequence, number = entry.sequence, entry.num_tokens
            if sequence.id not in self._scored:
                kept += [row] * entry.yields
                row += entry.yields
                continue
            generation = self._open[sequence.id]
            known = len(generation.prompt_logprobs)
            first = sequence.computed
            targets = generation.tokens[known + 1 : min(first + number + 1, sequence.prompt_tokens)]
            if targets:
                start = row + known - first
                generation.prompt_logprobs += logprobs_of(
                    logits[start : start + len(targets)],
                    targets,
                    generation.request.num_logprobs or 0,
                )
            row += number
            kept += [row - 1] * entry.yields
        return logits[kept]

    def _take(self, generation: _Generation, token: int, logprobs: Logprobs | None) -> Token:
        request = generation.request
        generation.tokens.append(token)
        number = len(generation.tokens) - len(request.prompt)
        finish: Finish | None = None
        if token in request.stop_ids:
            finish = "stop"
        elif number >= request.max_new_tokens:
            finish = "length"
        scores = (
            tuple(generation.prompt_logprobs) if number == 1 and request.scores_prompt else None
        )
        return Token(
            request.id,
            token,
            finish,
            logprobs,
            scores,
            generation.cached_tokens,
            generation.queued_s,
        )

    def _forget(self, id: int) -> None:
        del self._open[id], self._texts[id]
        self._scored.discard(id)

    def counts(self) -> Counts:
        """How it stands now."""
        scheduler = self.scheduler
        return Counts(
            running=len(scheduler.running),
            waiting=len(scheduler.waiting),
            kv_used_fraction=scheduler.pool.used_fraction,
            preemptions=self._preemptions,
            prefix_queries=self._prefix_queries,
            prefix_hits=self._prefix_hits,
            steps=self._steps,
        )


def prefix_keys(prompt: tuple[int, ...], block_tokens: int) -> tuple[bytes, ...]:
    """A name for each full block of the prompt that tells it from all others, with all before."""
    keys = []
    key = b""
    for start in range(0, len(prompt) - block_tokens + 1, block_tokens):
        text = ",".join(map(str, prompt[start : start + block_tokens]))
        key = blake2b(key + text.encode(), digest_size=16).digest()
        keys.append(key)
    return tuple(keys)


def failure_of(id: int, error: Exception) -> Failure:
    """The server's log has the whole of it: it is a bug, though it ends one answer alone."""
    traceback.print_exception(error)
    return Failure(id, f"{type(error).__name__}: {error}")


def _draw(generation: _Generation) -> Draw:
    request = generation.request
    number = len(generation.tokens) - len(request.prompt)
    barred = request.stop_ids if number < request.min_new_tokens else frozenset[int]()
    uniform = generation.random.random() if request.temperature > 0 else 0.0
    return Draw(request, uniform, barred)
