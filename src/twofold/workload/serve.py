"""`Serve`: requests that arrive, how long they are, and how soon they must be answered."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from twofold.errors import InputError

ArrivalKind = Literal["poisson", "bursty", "closed", "offline", "trace"]
MOST_TOKENS = 10_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrivals:
    """When requests come.

    `poisson`: `rate_per_s` on the mean, whatever becomes of earlier ones (open loop). `bursty`:
    the same mean with gaps drawn from a Gamma distribution of shape `burstiness` (1 is Poisson,
    below 1 comes in bursts). `closed`: `users` who each send the next request `think_s` after
    an answer. `offline`: all at once. `trace`: as recorded in the file `trace`, JSON lines with
    `arrival_s`, `input_tokens`, `output_tokens`.
    """

    kind: ArrivalKind = "poisson"
    rate_per_s: float | None = None
    burstiness: float = 1.0
    users: int | None = None
    think_s: float = 0.0
    trace: str | None = None

    def __post_init__(self) -> None:
        if self.kind in ("poisson", "bursty") and not 0 < (self.rate_per_s or 0) < math.inf:
            _refuse(
                "rate_per_s",
                "how many requests come a second is not stated"
                if self.rate_per_s is None
                else f"requests cannot come at a rate of {self.rate_per_s} a second",
                "give a rate, or `users` for a closed loop",
            )
        if self.kind == "closed" and (self.users or 0) < 1:
            _refuse("users", f"a closed loop has {self.users} users", "give at least 1")
        if self.kind == "trace" and not self.trace:
            _refuse("trace", "the file of the trace is not named", "give its path")
        if not self.burstiness > 0:
            _refuse("burstiness", f"it is {self.burstiness}", "use a positive number, 1 is Poisson")
        if self.think_s < 0:
            _refuse("think_s", f"it is {self.think_s}", "use 0 or more seconds")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """How many tokens: log-normal with that mean, `spread` the standard deviation of ln (0: all
    alike), held between `least` and `most`."""

    mean: float
    spread: float = 0.0
    least: int = 1
    most: int | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.mean <= MOST_TOKENS:
            _refuse("mean", f"it is {self.mean}", f"use 1 to {MOST_TOKENS:,} tokens")
        if not 0 <= self.spread <= 5:
            _refuse("spread", f"it is {self.spread}", "use 0 to 5")
        if self.least < 1 or (self.most is not None and self.most < self.least):
            _refuse("least", f"lengths from {self.least} to {self.most}", "use 1 <= least <= most")


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedPrefix:
    """Requests begin with one of `count` texts of `tokens` tokens (system prompts, documents);
    they are part of the input length."""

    tokens: int
    count: int = 1

    def __post_init__(self) -> None:
        if self.tokens < 1 or self.count < 1:
            _refuse("shared_prefix", f"{self.count} of {self.tokens} tokens", "use at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """What a request must meet to count: its time to first token, its mean time per output token
    after that, its whole time. A plan meets the targets when `attainment` of the requests do.
    """

    ttft_s: float | None = None
    tpot_s: float | None = None
    e2e_s: float | None = None
    attainment: float = 0.9

    def __post_init__(self) -> None:
        for name in ("ttft_s", "tpot_s", "e2e_s"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                _refuse(name, f"it is {value}", "use a positive time")
        if not 0 < self.attainment < 1:
            _refuse("attainment", f"it is {self.attainment}", "use a fraction such as 0.9 or 0.99")

    def met(self, ttft_s: float, tpot_s: float | None, e2e_s: float) -> bool:
        """Of one request; one output token alone has no time per token."""
        return (
            (self.ttft_s is None or ttft_s <= self.ttft_s)
            and (self.tpot_s is None or tpot_s is None or tpot_s <= self.tpot_s)
            and (self.e2e_s is None or e2e_s <= self.e2e_s)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Serve:
    """Answering requests. `num_requests` are judged, after `warmup_requests` that are not."""

    name: str = "serve"
    arrivals: Arrivals
    input: Lengths
    output: Lengths
    shared_prefix: SharedPrefix | None = None
    targets: Targets = field(default_factory=Targets)
    num_requests: int = 1000
    warmup_requests: int = 0

    def __post_init__(self) -> None:
        if self.num_requests < 1 or self.warmup_requests < 0:
            _refuse(
                "num_requests",
                f"{self.num_requests} requests after {self.warmup_requests}",
                "judge at least 1",
            )
        if self.shared_prefix is not None and self.shared_prefix.tokens >= self.input.mean:
            _refuse(
                "shared_prefix",
                f"{self.shared_prefix.tokens} shared tokens are not less than the mean input of "
                f"{self.input.mean:g}",
                "the input length counts the shared part too",
            )


def _refuse(field: str, what: str, help: str) -> None:
    raise InputError(what, at=f"workload, {field}", help=help)
