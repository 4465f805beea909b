"""What a proof of serving leaves behind: stretches as they were measured, and what follows.

As in training, everything under `Derived` can be recomputed from the rest, and `check` does so.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from twofold.evidence.records import Factor, LedgerEntry, NoiseFloor, Ratio
from twofold.evidence.serving.answers import Stretch
from twofold.workload.serve import Serve, Targets

Verdict = Literal["proven", "not proven", "no verdict"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedTargets:
    """`times_unloaded` as long as TTFT and TPOT of the first baseline alone on the machine."""

    name: str
    times_unloaded: float
    targets: Targets


@dataclass(frozen=True, slots=True, kw_only=True)
class RatePrediction:
    """What was expected at one rate (None: all at once)."""

    rate_per_s: float | None
    ttft_p50_s: float
    tpot_p50_s: float | None
    output_tokens_per_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingPrediction:
    """Written down, and hashed, before the first judged sample. `goodput_per_s` by target."""

    goodput_per_s: dict[str, float | None]
    rates: tuple[RatePrediction, ...]
    basis: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingArm:
    """One contestant: a plan that is served here, or a URL.

    `rates_per_s` are the rates it is run at in every block, fixed before the first judged sample;
    arms between two others, for the attribution alone, run in the first block only.
    `levers` are those of `ServingEvidence.levers` that it has; None for an arm that takes no
    part in the attribution. `plan` is the resolved document, None for a URL.
    """

    name: str
    title: str
    url: str | None
    plan: dict[str, Any] | None
    lossy: bool
    rates_per_s: tuple[float, ...]
    every_block: bool = True
    levers: tuple[str, ...] | None = None
    prediction: ServingPrediction | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Transcript:
    """One greedy answer. `gaps` has, for each token, how far the log probability of the most
    likely token lay above the next; empty where the server does not say. `tokens` are ids where
    the server gives them, else the text cut into characters."""

    arm: str
    prompt: int
    tokens: tuple[int | str, ...]
    gaps: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingQuality:
    """Greedy answers of an arm beside the baseline's, and held-out loss where it was taken.

    `num_equal` are equal token for token, `num_near_ties` first differ where the two most likely
    tokens lie within `epsilon` in both arms: there the order of additions decides, which changes
    with the shape of a batch. `widest_gap` is the largest gap of a first difference.
    `loss_difference` (nats per token, arm minus baseline) must have an upper bound within
    `margin`.
    """

    num_prompts: int
    num_tokens: int
    num_equal: int
    num_near_ties: int
    widest_gap: float | None
    epsilon: float
    loss_difference: float | None
    loss_upper: float | None
    margin: float
    passed: bool
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GoodputRow:
    """Goodput of an arm in one block, with the rates that it lies between."""

    arm: str
    target: str
    block: int
    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingResult:
    """One claim: goodput of an arm over that of a baseline, at one target.

    `lower_bound`: in some block the arm still met the target at its highest rate, or the baseline
    missed it at its lowest, so the ratio is at least this.
    """

    target: str
    arm: str
    baseline: str
    verdict: Verdict
    reason: str
    ratio: Ratio | None
    lower_bound: bool
    goodput_per_s: float | None
    baseline_per_s: float | None
    predicted: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """A prediction beside what was measured, over all judged stretches of that arm and rate."""

    arm: str
    quantity: Literal["goodput", "output tokens/s", "TPOT", "TTFT"]
    rate_per_s: float | None
    predicted: float
    measured: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingDerived:
    noise_floor: NoiseFloor | None
    goodputs: list[GoodputRow]
    results: list[ServingResult]
    quality: dict[str, ServingQuality]
    """By arm, each against the baseline of its first comparison."""
    attribution: list[Factor]
    attribution_note: str
    compared: list[Compared]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingEvidence:
    """The whole proof. `claimed` names the target the claim is made at.

    `comparisons` are (arm, baseline). `held_out` has the loss of each arm on the same windows of
    text (nats per token). `levers` are the causes told apart, `attribution` from the arm without
    any to the arm with all.
    """

    schema_version: int
    twofold_version: str
    name: str
    created: str
    smoke: bool
    workload: Serve
    targets: list[NamedTargets]
    claimed: str
    comparisons: list[tuple[str, str]]
    arms: list[ServingArm]
    levers: tuple[str, ...]
    stretches: list[Stretch]
    transcripts: list[Transcript]
    held_out: dict[str, list[float]]
    epsilon: float
    margin: float
    predictions_hash: str | None
    energy_grade: str
    environment: dict[str, Any]
    experiment: dict[str, Any]
    ledger: list[LedgerEntry]
    planned_blocks: int
    wall_s: float
    threats: list[str] = field(default_factory=list)
    derived: ServingDerived | None = None
