"""One replica under the simulated clock: it takes step after step, and leaps where it can."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from twofold.perf.serving import Column, Steps
from twofold.policy.batching import Batch, Scheduler, Sequence
from twofold.simulate.deployment import Phase

_LONGEST_LEAP = 256
"""Steps priced at once: more would be thrown away at the next arrival."""
_COUNT = np.arange(_LONGEST_LEAP, dtype=np.float64)
_NONE = np.zeros(_LONGEST_LEAP)


@dataclass(slots=True, kw_only=True)
class Log:
    """What a replica did, one entry a leap: from when to when, how many steps, tokens told,
    seconds by part (named in `parts`), and the share of its cache that was held at the end."""

    parts: tuple[str, ...] = ()
    start_s: list[float] = field(default_factory=list)
    end_s: list[float] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    parts_s: list[tuple[float, ...]] = field(default_factory=list)
    kv_used: list[float] = field(default_factory=list)


class Replica:
    """A scheduler and its clock. `outstanding` counts the tokens of all it has not answered."""

    def __init__(self, phase: Phase) -> None:
        self.scheduler = Scheduler(phase.limits)
        self.log = Log()
        self.outstanding = 0
        self.leap = 0
        self._price = phase.price
        self._batch: Batch | None = None
        self._start_s = 0.0
        self._steps = 0
        self._parts_s: dict[str, Column] = {}
        self._ends_s = np.zeros(0)

    @property
    def is_busy(self) -> bool:
        return self._batch is not None

    @property
    def end_s(self) -> float:
        """Of the leap under way."""
        return float(self._ends_s[self._steps - 1])

    def add(self, sequence: Sequence) -> None:
        self.outstanding += sequence.prompt_tokens + sequence.max_new_tokens
        self.scheduler.add(sequence)

    def could_admit(self) -> bool:
        """Whether a request that comes now may change the batch under way before it ends."""
        limits, scheduler = self.scheduler.limits, self.scheduler
        return (
            self._steps > 1
            and limits.batching == "continuous"
            and not scheduler.waiting
            and len(scheduler.running) < limits.max_num_seqs
        )

    def start(self, now_s: float) -> bool:
        """Begin the next batch; False where there is nothing to do."""
        batch = self.scheduler.schedule()
        while batch.preempted and not batch.entries:
            batch = self.scheduler.schedule()
        if not batch.entries:
            return False
        steps = min(self.scheduler.steady_steps(batch), _LONGEST_LEAP)
        tokens, sequences, pairs, keys = map(float, batch.work())
        self._parts_s = self._price(
            Steps(
                tokens=tokens,
                sequences=sequences,
                pairs=pairs,
                keys=keys + sequences * _COUNT[:steps],
            )
        )
        self._batch, self._start_s, self._steps = batch, now_s, steps
        self._ends_s = now_s + np.cumsum(sum(self._parts_s.values(), start=_NONE[:steps]))
        self.leap += 1
        return True

    def cut(self, now_s: float) -> None:
        """The leap ends with the step that is under way now."""
        self._steps = min(self._steps, int(np.searchsorted(self._ends_s, now_s)) + 1)
        self.leap += 1

    def finish(self) -> tuple[list[Sequence], list[Sequence]]:
        """The leap is over: who told the first token, and who has ended."""
        assert self._batch is not None
        batch, steps = self._batch, self._steps
        tell = [sequence for sequence, _, yields in batch.entries if yields]
        first = [] if steps > 1 else [one for one in tell if not one.generated]
        self._write(len(batch.entries), len(tell), steps)
        ended = self.scheduler.advance(batch, steps=steps)
        for sequence in ended:
            self.outstanding -= sequence.prompt_tokens + sequence.max_new_tokens
        self._batch = None
        return first, ended

    def _write(self, sequences: int, telling: int, steps: int) -> None:
        log, pool = self.log, self.scheduler.pool
        log.start_s.append(self._start_s)
        log.end_s.append(self.end_s)
        log.steps.append(steps)
        log.tokens.append(steps * telling)
        log.parts = tuple(self._parts_s)
        log.parts_s.append(
            tuple(
                float(part_s[:steps].sum() if isinstance(part_s, np.ndarray) else steps * part_s)
                for part_s in self._parts_s.values()
            )
        )
        grown = (steps - 1) * sequences / (pool.block_tokens * pool.num_blocks)
        log.kv_used.append(pool.used_fraction + grown)
