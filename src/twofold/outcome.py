"""`Outcome`: what an execution takes. Predicted or measured, the same fields."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

EnergyGrade = Literal["measured", "host-attributed", "modelled", "unknown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Time, memory, energy and money of one run.

    `step_parts_s` add up to `step_time_s` and `memory_parts_bytes` to `peak_memory_bytes`;
    `energy_parts_j` to `energy_j`; each may be empty where only the sum is known. `time_s`
    is the whole run with start-up. A figure that nobody knows is None, never zero.
    """

    step_time_s: float
    num_steps: int
    startup_s: float
    tokens_per_step: int
    flop_per_step: float | None
    peak_memory_bytes: float | None
    step_parts_s: dict[str, float] = field(default_factory=dict)
    memory_parts_bytes: dict[str, float] = field(default_factory=dict)
    energy_j: float | None = None
    energy_parts_j: dict[str, float] = field(default_factory=dict)
    energy_grade: EnergyGrade = "unknown"
    cost_usd: float | None = None
    carbon_kgco2e: float | None = None
    goodput_fraction: float = 1.0

    def __post_init__(self) -> None:
        if self.step_parts_s:
            parts_s = sum(self.step_parts_s.values())
            assert math.isclose(parts_s, self.step_time_s, rel_tol=1e-6), "step parts do not add up"
        if self.memory_parts_bytes and self.peak_memory_bytes is not None:
            parts_bytes = sum(self.memory_parts_bytes.values())
            assert math.isclose(parts_bytes, self.peak_memory_bytes, rel_tol=1e-6), (
                "memory parts do not add up"
            )

    @property
    def time_s(self) -> float:
        return (self.startup_s + self.num_steps * self.step_time_s) / self.goodput_fraction

    @property
    def tokens_per_s(self) -> float:
        return self.tokens_per_step / self.step_time_s

    @property
    def flop_per_s(self) -> float | None:
        return None if self.flop_per_step is None else self.flop_per_step / self.step_time_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """An outcome predicted. The step time is believed to lie between low and high (90 %)."""

    outcome: Outcome
    step_time_low_s: float
    step_time_high_s: float
    basis: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """An outcome that happened, with the samples and the conditions it happened under."""

    outcome: Outcome
    step_times_s: tuple[float, ...]
    cpu_s: float
    load_before: float | None
    load_after: float | None
    steal_fraction: float | None
    device: str


"""`cpu_s` and the loads are diagnosis; the claim is wall time."""
