"""Tuned recipes with their bill: what `--retune` writes and every proof starts from."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from twofold.document import read_json, write_json
from twofold.errors import InputError

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One tuning run. `score` is the tune loss, None where it diverged."""

    learning_rate: float
    global_batch: int
    tokens: int
    train_s: float
    tune_loss: float | None
    score: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """The trials of one candidate, and the best of them: interior on every side."""

    model: str
    recipe: str
    trial_s: float
    trials: tuple[Trial, ...]
    learning_rate: float
    global_batch: int
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LengthTrial:
    """A run of the winner at one length: what the fixed length was chosen from."""

    seed: int
    tokens: int
    tune_loss: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TunedArm:
    """What an arm competes with. `lengths_tokens` end with the fixed length."""

    model: str
    recipe: str
    learning_rate: float
    global_batch: int
    lengths_tokens: tuple[int, ...]
    searches: tuple[Search, ...]
    length_trials: tuple[LengthTrial, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuned:
    """`target_loss` and `baseline_loss` in nats per token on the tune part."""

    schema_version: int = SCHEMA_VERSION
    experiment: str
    twofold_version: str
    created: str
    machine: str
    text_hash: str
    seeds: tuple[int, ...]
    target_loss: float
    baseline_loss: float
    num_runs: int
    wall_s: float
    arms: dict[str, TunedArm]


def read_tuned(path: Path) -> Tuned:
    tuned = read_json(path, Tuned)
    if tuned.schema_version != SCHEMA_VERSION:
        raise InputError(
            f"schema version {tuned.schema_version} is not {SCHEMA_VERSION}",
            at=str(path),
            help="tune again with `twofold prove EXPERIMENT --retune`",
        )
    return tuned


def write_tuned(tuned: Tuned, path: Path) -> None:
    write_json(path, asdict(tuned))


def tuning_bill(tuned: Tuned) -> dict[str, Any]:
    """The bill in the form the evidence keeps: a grid, its runs and the winner a candidate."""
    arms = {}
    for name, arm in tuned.arms.items():
        for search in arm.searches:
            label = name if len(arm.searches) == 1 else f"{name}: {search.model}, {search.recipe}"
            arms[label] = {
                "grid": {
                    "learning_rate": sorted({trial.learning_rate for trial in search.trials}),
                    "global_batch": sorted({trial.global_batch for trial in search.trials}),
                },
                "runs": [asdict(trial) for trial in search.trials],
                "winner": {
                    "learning_rate": search.learning_rate,
                    "global_batch": search.global_batch,
                },
            }
    return {
        "arms": arms,
        "seeds": list(tuned.seeds),
        "num_runs": tuned.num_runs,
        "wall_s": tuned.wall_s,
        "machine": tuned.machine,
        "created": tuned.created,
        "target_loss": tuned.target_loss,
        "baseline_loss": tuned.baseline_loss,
    }
