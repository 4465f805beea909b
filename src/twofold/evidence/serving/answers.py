"""Requests that were sent and what came back: the raw samples of serving."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from twofold.workload.serve import Targets

StretchKind = Literal["unloaded", "rate", "offline", "aa"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One request. Times count from the start of its stretch, on the sender's clock.

    `intended_s` is when it was to be sent: of open loops the drawn arrival, whatever became of
    earlier requests. `first_s` is when the first token came, `end_s` the last (or the error), and
    `chunks_s` all chunks that held a token, in order. Token counts are the server's own where it
    reports usage. `error` says why there is no whole answer; what came before is kept.
    """

    intended_s: float
    sent_s: float
    first_s: float | None
    end_s: float
    input_tokens: int
    output_tokens: int
    cached_tokens: int | None = None
    error: str | None = None
    chunks_s: tuple[float, ...] = ()

    @property
    def ttft_s(self) -> float | None:
        """From the intended time: a late sender makes it longer, never shorter."""
        return None if self.first_s is None else self.first_s - self.intended_s

    @property
    def e2e_s(self) -> float:
        return self.end_s - self.intended_s

    @property
    def tpot_s(self) -> float | None:
        """(E2E - TTFT) / (output tokens - 1); one token alone has none."""
        if self.first_s is None or self.output_tokens < 2:
            return None
        return (self.end_s - self.first_s) / (self.output_tokens - 1)

    @property
    def lag_s(self) -> float:
        """How late it was sent: the sender's own fault."""
        return self.sent_s - self.intended_s

    @property
    def whole(self) -> bool:
        return self.error is None and self.first_s is not None

    def meets(self, targets: Targets) -> bool:
        ttft_s = self.ttft_s
        return self.whole and ttft_s is not None and targets.met(ttft_s, self.tpot_s, self.e2e_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """Requests sent to one server in one go.

    The first `num_warmup` answers are not judged. `rate_per_s` is the mean that arrivals were
    drawn for, None where the next request waits for an answer or all come at once. `users` is
    that of a closed loop. `crowded_cores` is what other processes took of the cores that may be
    used here; `energy_j` is of the whole stretch.
    """

    arm: str
    kind: StretchKind
    block: int
    position: int
    seed: int
    rate_per_s: float | None
    users: int | None
    num_warmup: int
    answers: tuple[Answer, ...]
    energy_j: float | None = None
    load_before: float | None = None
    load_after: float | None = None
    steal_fraction: float | None = None
    crowded_cores: float | None = None

    @property
    def judged(self) -> Sequence[Answer]:
        return self.answers[self.num_warmup :]

    def attainment(self, targets: Targets) -> float:
        """Share of the judged requests that met all targets; one without an answer did not."""
        judged = self.judged
        return sum(answer.meets(targets) for answer in judged) / len(judged)
