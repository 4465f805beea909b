"""What a proof leaves behind: samples as they were measured, and what was derived from them.

Everything under `Derived` can be recomputed from the rest; `check` does exactly that. An
interval that cannot be known (fewer than two pairs) has the bounds None, never infinity, so that
every record is strict JSON.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Role = Literal["aa", "run"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One run of one arm at one schedule-complete length.

    `length` is the index into `Arm.lengths_tokens`; `fixed` marks the length the claim is read
    at. `train_s` is the clock of the claim: from the first touch of data to the last step.
    `startup_s` is process start, imports, building and compiling; it is shown apart and added.
    `curve` holds (tokens, seconds on the training clock, training loss) along the run.
    A command that reports no held-out loss leaves `test_loss` None.
    """

    arm: str
    role: Role
    block: int
    position: int
    seed: int
    length: int
    fixed: bool
    tokens: int
    num_steps: int
    startup_s: float
    train_s: float
    cpu_s: float
    step_time_median_s: float
    tune_loss: float | None
    test_loss: float | None
    train_loss: float | None
    peak_memory_bytes: float | None
    energy_j: float | None
    load_before: float | None
    load_after: float | None
    steal_fraction: float | None
    curve: list[tuple[int, float, float]] = field(default_factory=list)
    run: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What was written down, and hashed, before the first sample of the arm."""

    step_time_s: float
    step_time_low_s: float
    step_time_high_s: float
    step_parts_s: dict[str, float]
    peak_memory_bytes: float
    memory_parts_bytes: dict[str, float]
    tokens_to_target: float | None
    tokens_to_target_low: float | None
    tokens_to_target_high: float | None
    basis: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One contestant. `maths` and `recipe` name the side it takes in the two attribution groups.

    `plan` is the resolved plan document, or None when the arm is a command.
    `fixed_length` indexes `lengths_tokens`.
    """

    name: str
    title: str
    maths: str
    recipe: str
    lengths_tokens: tuple[int, ...]
    fixed_length: int
    num_parameters: int | None
    inference_flop_per_token: float | None
    model_hash: str | None
    workload_hash: str | None
    plan: dict[str, Any] | None
    command: str | None
    prediction: Prediction | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """A paired speed-up: geometric mean of `pairs` with its 95 % log-t interval.

    `pairs` are (block, ratio) in run order. `spread` is the standard deviation of the logs. One
    pair alone has no interval and no spread: `low`, `high` and `spread` are then None.
    """

    value: float
    low: float | None
    high: float | None
    pairs: tuple[tuple[int, float], ...]
    spread: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """Held-out loss (nats per token), arm minus baseline, paired by seed.

    Passed when the one-sided 95 % upper bound is at most `margin`: of the difference itself for
    non-inferiority (same loss), of its size in either direction for parity (same maths). One
    seed has no bound: `upper` is None and the test is not passed.
    `margin_time_fraction` is the same margin as time: how much longer the baseline would have
    to train to gain it.
    """

    difference: float
    upper: float | None
    margin: float
    passed: bool
    margin_time_fraction: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Factor:
    """One cause of a speed-up, as a factor. `first_in` and `last_in` bracket the order."""

    name: str
    value: float
    low: float | None
    high: float | None
    first_in: float
    last_in: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One labelled claim: an arm against a baseline.

    `verdict` is `proven`, `not proven` or `no verdict` and `reason` says why in a sentence.
    `fixed` is the conservative ratio at fixed lengths, of training times, or of whole wall times
    for the same loss where an arm is a command; `fixed_with_startup` is the same with start-up on
    the clock, `to_target` the ratio of times interpolated at the target loss.
    `work_removed` x `work_faster` = `fixed`. The values of `attribution` multiply to `fixed`;
    `interaction` is v(maths and recipe) - v(maths) - v(recipe) in logs, 0 for independent causes.
    `notes` say why a figure is not given.
    """

    kind: Literal["same maths", "same loss"]
    arm: str
    baseline: str
    verdict: Literal["proven", "not proven", "no verdict"]
    reason: str
    fixed: Ratio | None
    fixed_with_startup: Ratio | None
    to_target: Ratio | None
    work_removed: float | None
    work_faster: float | None
    quality: Quality | None
    predicted: float | None
    attribution: list[Factor] = field(default_factory=list)
    interaction: float | None = None
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseFloor:
    """A/A: the same arm against itself. `covers_one` says whether its interval holds 1."""

    ratio: Ratio
    covers_one: bool
    pairs_needed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Derived:
    """All figures that follow from the samples. `crossings` has one row an arm and block."""

    noise_floor: NoiseFloor | None
    results: list[Result]
    crossings: list[dict[str, Any]]
    """{"arm", "seed", "block", "train_s", "tokens", "low_s", "high_s", "note"}. `train_s` and
    `tokens` are the interpolated crossing of the target, None where it was not reached or lies
    outside the lengths run; the crossing lies between `low_s` and `high_s`, None where unknown."""


EXPLAINING_EVENTS = ("failed", "aborted", "refused", "skipped")


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerEntry:
    """One attempt, kept whatever came of it.

    A run that is missing from the samples is explained by an entry of its arm and block whose
    `event` is one of `EXPLAINING_EVENTS`.
    """

    time: str
    event: str
    arm: str
    block: int
    seed: int
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """The whole proof. Written as `evidence.json`; `target_loss` in nats per token.

    `comparisons` lists what is claimed: (kind, arm, baseline). `roof_flop_per_s` by
    "precision" is the calibrated roof nothing measured may exceed. `arm_flop_per_token` is
    model FLOP of training (forward and backward, no recompute).
    """

    schema_version: int
    twofold_version: str
    name: str
    created: str
    smoke: bool
    target_loss: float | None
    target_origin: str
    margin: float
    comparisons: list[tuple[Literal["same maths", "same loss"], str, str]]
    arms: list[Arm]
    samples: list[Sample]
    predictions_hash: str | None
    predicted_order: list[dict[str, Any]]
    finals: list[dict[str, Any]]
    tuning: dict[str, Any] | None
    roof_flop_per_s: dict[str, float]
    roof_bytes_per_s: float | None
    arm_flop_per_token: dict[str, float]
    arm_roofline: dict[str, list[dict[str, Any]]]
    energy_grade: str
    environment: dict[str, Any]
    experiment: dict[str, Any]
    ledger: list[LedgerEntry]
    planned_blocks: int
    wall_s: float
    threats: list[str]
    derived: Derived | None
