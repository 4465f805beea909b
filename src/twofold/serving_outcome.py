"""`ServingOutcome`: what answering requests takes. Predicted or measured, the same fields."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from twofold.outcome import EnergyGrade


@dataclass(frozen=True, slots=True, kw_only=True)
class Percentiles:
    """Of one quantity over the judged requests."""

    mean: float
    p50: float
    p90: float
    p99: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingOutcome:
    """Latency, throughput, memory, energy and money of a stretch of serving.

    TTFT is from arrival to first token, TPOT of a request (E2E - TTFT) / (output tokens - 1),
    and `tpot_s` their distribution over requests with at least two output tokens (None where
    there is none). `attained_fraction` is the share of requests that met all targets, and
    `goodput_per_s` that share x the rate sent; both are None where no target is set.
    `step_parts_s` add up to the mean `step_time_s`; `memory_parts_bytes` (of the fullest device)
    to `peak_memory_bytes`. `duration_s` runs from the first judged arrival to the last answer.
    """

    num_requests: int
    duration_s: float
    input_tokens: int
    output_tokens: int
    ttft_s: Percentiles
    tpot_s: Percentiles | None
    e2e_s: Percentiles
    goodput_per_s: float | None = None
    attained_fraction: float | None = None
    step_time_s: float | None = None
    step_parts_s: dict[str, float] = field(default_factory=dict)
    kv_used_fraction_mean: float | None = None
    kv_used_fraction_peak: float | None = None
    cached_fraction: float = 0.0
    num_preemptions: int = 0
    peak_memory_bytes: float | None = None
    memory_parts_bytes: dict[str, float] = field(default_factory=dict)
    energy_j: float | None = None
    energy_grade: EnergyGrade = "unknown"
    cost_usd: float | None = None
    carbon_kgco2e: float | None = None

    def __post_init__(self) -> None:
        if self.step_parts_s and self.step_time_s is not None:
            parts_s = sum(self.step_parts_s.values())
            assert math.isclose(parts_s, self.step_time_s, rel_tol=1e-6), "step parts do not add up"
        if self.memory_parts_bytes and self.peak_memory_bytes is not None:
            parts_bytes = sum(self.memory_parts_bytes.values())
            assert math.isclose(parts_bytes, self.peak_memory_bytes, rel_tol=1e-6), (
                "memory parts do not add up"
            )

    @property
    def requests_per_s(self) -> float:
        return self.num_requests / self.duration_s

    @property
    def output_tokens_per_s(self) -> float:
        return self.output_tokens / self.duration_s

    def usd_per_million_output_tokens(self) -> float | None:
        return None if self.cost_usd is None else 1e6 * self.cost_usd / self.output_tokens

    def j_per_output_token(self) -> float | None:
        return None if self.energy_j is None else self.energy_j / self.output_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingEstimate:
    """Predicted. `spread` is the 90 % half-width of ln of its times."""

    outcome: ServingOutcome
    spread: float
    basis: str
