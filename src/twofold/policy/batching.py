"""The batching scheduler: which sequences take how many tokens in the next step.

One pure decision, driven by the simulated clock and by the engine alike, so that what is
predicted and what is executed cannot drift apart. Continuous batching as in Orca (Yu et al.
2022), prompts in chunks beside running decodes as in Sarathi-Serve (Agrawal et al. 2024, arXiv
2403.02310), paged key-value blocks with preemption by recomputation as in vLLM. Prompt and
generated tokens are treated alike: a sequence has tokens whose keys and values are not in the
cache yet; a step that computes the last of them yields one token more.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from twofold.policy.kv_blocks import BlockPool, Keys

Batching = Literal["static", "continuous"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a step may hold.

    `static` batching fills a batch only when the one before has ended whole. Without `chunked`
    a prompt is taken in one step or not at all. `num_blocks` of `block_tokens` tokens each are
    the key-value cache.
    """

    batching: Batching = "continuous"
    max_num_seqs: int
    max_batched_tokens: int
    chunked: bool = True
    prefix_caching: bool = True
    block_tokens: int = 16
    num_blocks: int


@dataclass(slots=True, eq=False, kw_only=True)
class Sequence:
    """One request as the scheduler sees it.

    `prefix_keys` name the full blocks of its prompt, each with all before it. `computed` tokens
    have keys and values in `blocks`, of which `cached` were found there when it was admitted.
    Where another machine did the prompt, `computed` and `generated` say so from the start.
    """

    id: int
    prompt_tokens: int
    max_new_tokens: int
    prefix_keys: Keys = ()
    computed: int = 0
    generated: int = 0
    cached: int = 0
    preemptions: int = 0
    blocks: list[int] = field(default_factory=list)

    @property
    def num_tokens(self) -> int:
        return self.prompt_tokens + self.generated

    @property
    def pending(self) -> int:
        """Tokens to compute before the next one comes."""
        return self.prompt_tokens + self.generated - self.computed


class Entry(NamedTuple):
    """A sequence's part of a step: its next `num_tokens` tokens; `yields` one if it ends them."""

    sequence: Sequence
    num_tokens: int
    yields: bool


class Work(NamedTuple):
    """What the time of a step depends on, as a `StepCurve` counts it: computed tokens, sequences,
    query-key pairs of prompt tokens, keys that decoding sequences read (each its own included)."""

    tokens: int
    sequences: int
    pairs: int
    keys: int


@dataclass(frozen=True, slots=True)
class Batch:
    """One step. `preempted` sequences lost their blocks to it and wait again."""

    entries: list[Entry]
    preempted: list[Sequence]

    @property
    def num_tokens(self) -> int:
        return sum(entry.num_tokens for entry in self.entries)

    @property
    def is_decode(self) -> bool:
        """Whether every sequence takes one token and yields one."""
        return all(entry.yields and entry.num_tokens == 1 for entry in self.entries)

    def work(self) -> Work:
        """Of the step that is to be executed: counted before `advance`."""
        tokens = pairs = keys = 0
        for sequence, taken, yields in self.entries:
            tokens += taken
            if yields and taken == 1:
                keys += sequence.computed + 1
            else:
                pairs += taken * sequence.computed + taken * (taken + 1) // 2
        return Work(tokens, len(self.entries), pairs, keys)


class Scheduler:
    """Decides step after step: `schedule`, execute, `advance`. First come, first served.

    A sequence longer than the whole cache must be refused before it is added (`fits`).
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.pool = BlockPool(limits.num_blocks, limits.block_tokens)
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []

    def fits(self, prompt_tokens: int, max_new_tokens: int) -> bool:
        """Whether such a sequence could ever be served to its end. Its last token is only told,
        not computed on."""
        computed = prompt_tokens + max_new_tokens - 1
        whole = self.limits.chunked or computed <= self.limits.max_batched_tokens
        return whole and self.pool.blocks_for(computed) <= self.limits.num_blocks

    def add(self, sequence: Sequence) -> None:
        self.waiting.append(sequence)

    def drop(self, sequence: Sequence) -> None:
        """It is not wanted any more, wherever it stands. Between steps, never within one."""
        if sequence in self.running:
            self.running.remove(sequence)
            self._release(sequence)
        else:
            self.waiting.remove(sequence)

    def schedule(self) -> Batch:
        """The next step, its blocks taken. Empty only where nothing waits or runs."""
        entries: list[Entry] = []
        preempted: list[Sequence] = []
        budget, block_tokens = self.limits.max_batched_tokens, self.limits.block_tokens
        for sequence in self.running:  # whoever gives up its blocks leaves at the end of the list
            computed = sequence.computed
            pending = sequence.prompt_tokens + sequence.generated - computed
            tokens = pending if pending <= budget else self._next_tokens(pending, budget)
            has_room = computed + tokens <= len(sequence.blocks) * block_tokens
            if tokens and (has_room or self._make_room(sequence, tokens, preempted)):
                entries.append(Entry(sequence, tokens, tokens == pending))
                budget -= tokens
        if not preempted and (self.limits.batching == "continuous" or not self.running):
            self._admit(entries, budget)
        return Batch(entries, preempted)

    def advance(
        self, batch: Batch, *, stopped: Collection[int] = (), steps: int = 1
    ) -> list[Sequence]:
        """The step is done, `steps` times in a row (as many as `steady_steps` allows). Returns the
        sequences that have ended: at their last token, or by id in `stopped` (an end token, a
        stop word)."""
        ended: list[Sequence] = []
        block_tokens = self.limits.block_tokens
        for sequence, tokens, yields in batch.entries:
            first = sequence.computed
            sequence.computed = first + tokens + steps - 1
            if first < sequence.prompt_tokens:
                self._name_full_blocks(sequence, first)
            short = sequence.computed - len(sequence.blocks) * block_tokens
            if short > 0:
                sequence.blocks += self.pool.take(-(-short // block_tokens))
            if yields:
                sequence.generated += steps
                if sequence.generated >= sequence.max_new_tokens or sequence.id in stopped:
                    ended.append(sequence)
        for sequence in ended:
            self._release(sequence)
        if ended:
            gone = {id(sequence) for sequence in ended}
            self.running = [s for s in self.running if id(s) not in gone]
        return ended

    def steady_steps(self, batch: Batch) -> int:
        """For at least how many steps the batch stays as it is if nothing arrives: what lets the
        simulated clock leap from change to change. Whoever gave up its blocks may come back at
        the next step, and whoever ends its prompt names a block that another can use."""
        if not batch.entries or batch.preempted:
            return 1
        steps = batch.entries[0].sequence.max_new_tokens
        for sequence, tokens, yields in reversed(batch.entries):  # the newest are the likeliest
            if tokens > 1 or not yields or sequence.computed < sequence.prompt_tokens:
                return 1
            left = sequence.max_new_tokens - sequence.generated
            if left < steps:
                steps = left
        while steps > 1 and self._more_blocks(batch, steps) > self.pool.num_free:
            steps //= 2
        return steps

    def _more_blocks(self, batch: Batch, steps: int) -> int:
        """That its sequences need for so many tokens each; more than that where even as many as
        they could need at most are free."""
        block_tokens = self.limits.block_tokens
        most = len(batch.entries) * (steps // block_tokens + 1)
        if most <= self.pool.num_free:
            return most
        return sum(
            max(0, -(-(e.sequence.computed + steps) // block_tokens) - len(e.sequence.blocks))
            for e in batch.entries
        )

    def _next_tokens(self, pending: int, budget: int) -> int:
        if self.limits.chunked:
            return min(pending, budget)
        return pending if pending <= budget else 0

    def _make_room(self, sequence: Sequence, tokens: int, preempted: list[Sequence]) -> bool:
        """Blocks for its next tokens, taken from the newest if need be; False where it is the
        newest itself, and waits again."""
        needed = self.pool.blocks_for(sequence.computed + tokens) - len(sequence.blocks)
        while needed > self.pool.num_free:
            victim = self.running.pop()
            self._release(victim)
            victim.computed = 0
            victim.preemptions += 1
            preempted.append(victim)
            self.waiting.appendleft(victim)
            if victim is sequence:
                return False
        if needed > 0:
            sequence.blocks += self.pool.take(needed)
        return True

    def _admit(self, entries: list[Entry], budget: int) -> None:
        while self.waiting and len(self.running) < self.limits.max_num_seqs and budget > 0:
            sequence = self.waiting[0]
            found = self._find_prefix(sequence)
            computed = max(sequence.computed, len(found) * self.limits.block_tokens)
            tokens = self._next_tokens(sequence.num_tokens - computed, budget)
            needed = self.pool.blocks_for(computed + tokens) - len(found)
            room = self.pool.num_free - self.pool.num_idle(found)
            if not tokens or needed > room:
                break
            self.waiting.popleft()
            self.pool.hold(found)
            sequence.computed = computed
            sequence.cached = len(found) * self.limits.block_tokens
            sequence.blocks = [*found, *self.pool.take(needed)]
            self.running.append(sequence)
            entries.append(Entry(sequence, tokens, tokens == sequence.pending))
            budget -= tokens

    def _find_prefix(self, sequence: Sequence) -> list[int]:
        """Known blocks of its beginning; at least one token is left, which yields the next."""
        if not self.limits.prefix_caching or sequence.computed:
            return []
        most = (sequence.num_tokens - 1) // self.limits.block_tokens
        return self.pool.find(sequence.prefix_keys[:most])

    def _name_full_blocks(self, sequence: Sequence, first: int) -> None:
        """Those of its prompt that its tokens from `first` on have filled."""
        if not self.limits.prefix_caching:
            return
        block_tokens = self.limits.block_tokens
        last = min(sequence.computed // block_tokens, len(sequence.prefix_keys))
        for index in range(first // block_tokens, last):
            self.pool.name(sequence.blocks[index], sequence.prefix_keys[index])

    def _release(self, sequence: Sequence) -> None:
        self.pool.release(sequence.blocks)
        sequence.blocks = []
