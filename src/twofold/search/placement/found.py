"""A plan over unlike pools in the figures that people decide by."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from twofold.outcome import Estimate
from twofold.plan import Plan

Kind = Literal[
    "uneven shares", "uneven stages", "even shares", "one pool", "local updates", "streaming"
]


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolPart:
    """What one pool does: `devices` of it in so many data `ranks` (of a stage), each with
    `sequences` (number of ranks, sequences each), and the `layers` of its stages.

    `busy_s` is its slowest rank's own work in a step, without exchanges: when it is done.
    """

    pool: str
    devices: int
    ranks: int
    sequences: tuple[tuple[int, int], ...]
    layers: tuple[int, ...]
    busy_s: float
    peak_bytes: float
    usable_bytes: float

    @property
    def full(self) -> float:
        return self.peak_bytes / self.usable_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """A plan and its estimate; `messages_s` of the step are exchanges that nothing hides, and
    `half_width` that of ln time (90 %). `how` says what the exchanges between pools go over."""

    kind: Kind
    plan: Plan
    estimate: Estimate
    parts: tuple[PoolPart, ...]
    messages_s: float
    half_width: float
    how: str = ""

    @property
    def step_s(self) -> float:
        return self.estimate.outcome.step_time_s

    @property
    def devices(self) -> int:
        return sum(part.devices for part in self.parts)

    @property
    def message_fraction(self) -> float:
        return self.messages_s / self.step_s

    @property
    def binds(self) -> str:
        """What takes most of the step: the exchange, or the pool that is done last."""
        if self.messages_s >= 0.5 * self.step_s:
            return f"messages {self.message_fraction:.0%}"
        last = max(self.parts, key=lambda part: part.busy_s)
        fullest = max(self.parts, key=lambda part: part.full)
        words = f"{last.pool} {last.busy_s / self.step_s:.0%}"
        if self.message_fraction >= 0.01:
            words += f", messages {self.message_fraction:.0%}"
        return words + (f", memory of {fullest.pool}" if fullest.full > 0.9 else "")

    def as_mapping(self) -> dict[str, Any]:
        outcome = self.estimate.outcome
        return {
            "kind": self.kind,
            "levers": asdict(self.plan),
            "devices": self.devices,
            "step_time_s": outcome.step_time_s,
            "step_time_low_s": self.estimate.step_time_low_s,
            "step_time_high_s": self.estimate.step_time_high_s,
            "tokens_per_s": outcome.tokens_per_s,
            "time_s": outcome.time_s,
            "cost_usd": outcome.cost_usd,
            "energy_j": outcome.energy_j,
            "messages_s": self.messages_s,
            "pools": [asdict(part) for part in self.parts],
            "over": self.how,
            "bound_by": self.binds,
            "basis": self.estimate.basis,
        }


def believed(step_s: float, half_width: float) -> tuple[float, float]:
    """The step time's 90 % interval."""
    return step_s * math.exp(-half_width), step_s * math.exp(half_width)
