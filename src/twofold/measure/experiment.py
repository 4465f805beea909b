"""The experiment file: who competes, over what, and what counts as equal quality.

An arm is a model and a recipe run under some `maths`, or any command. `maths` says who chooses
the plan: `default` is what the framework does unasked, `fastest` picks precision and attention
as a well-informed person would, `planned` is Twofold's own search. An arm with several
candidates competes with the one that tuning found best.
"""

from __future__ import annotations

import math
import re
import tomllib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from twofold.document import from_mapping, read_text
from twofold.engines import Command
from twofold.errors import InputError
from twofold.model import Model
from twofold.units import parse_seconds
from twofold.workload import Recipe

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

Maths = Literal["default", "fastest", "planned"]
Placing = Literal["planned", "even shares", "best subset"]
Kind = Literal["same maths", "same loss"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadSpec:
    """The text and the length of a sequence, the same for every arm; `tokens` of arms that are
    placed on a fleet, which are not tuned."""

    text: str = "stdlib"
    seq_len: int = 128
    tokens: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class QualitySpec:
    """`margin` in nats per token, fixed before anything is run."""

    margin: float
    evaluation_tokens: int = 65536


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetSpec:
    """At most `blocks` paired blocks and about `wall` in all; at least three blocks are run."""

    blocks: int = 4
    wall: str = "8min"

    @property
    def wall_s(self) -> float:
        return parse_seconds(self.wall)


@dataclass(frozen=True, slots=True, kw_only=True)
class TuningSpec:
    """Where tuning starts, and the machine time of one trial in seconds.

    Learning rate and batch are doubled and halved until the best has worse neighbours on every
    side. `baseline` fixes the target; `safety` is how far below its loss, in nats per token on
    the tune part, another arm's fixed length is chosen.
    """

    baseline: str
    baseline_s: float
    seeds: tuple[int, ...] = (101, 102)
    safety: float = 0.01
    length_fractions: tuple[float, ...] = (0.6, 0.8, 1.0)
    target_fraction: float = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """`model` and `recipe` name entries of the experiment file."""

    model: str
    recipe: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmSpec:
    """Either `candidates` under `maths`, or a `command`.

    `as_arm` takes model, tuned recipe and lengths of another arm, so that only maths differs.
    `fixed_only` arms run at the fixed length alone. `tuning_s` is the length of a tuning trial;
    `safety` overrides the tuning's for this arm: seeds scatter, and an arm that is to pass a
    non-inferiority test in few blocks must aim below the loss it is compared at.

    `placement` runs the arm's one candidate on the pools of the experiment's fleet, as its recipe
    stands: the best plan over all of them, equal shares on all, or equal shares on the best
    subset of the pools.
    """

    title: str = ""
    maths: Maths = "default"
    candidates: tuple[Candidate, ...] = ()
    as_arm: str | None = None
    command: Command | None = None
    fixed_only: bool = False
    tuning_s: float | None = None
    safety: float | None = None
    placement: Placing | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    kind: Kind
    arm: str
    baseline: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """One experiment file, checked. `fleet` is the file of unlike pools that arms are placed on."""

    name: str
    arms: dict[str, ArmSpec]
    comparisons: tuple[Comparison, ...]
    quality: QualitySpec
    workload: WorkloadSpec | None = None
    budget: BudgetSpec = field(default_factory=BudgetSpec)
    tuning: TuningSpec | None = None
    tuned: str | None = None
    fleet: str | None = None
    models: dict[str, Model] = field(default_factory=dict)
    recipes: dict[str, Recipe] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for place, name in [("name", self.name), *((f"arms.{name}", name) for name in self.arms)]:
            if not _NAME.fullmatch(name):
                _refuse(place, f"'{name}' cannot name a folder", "use letters, digits, . _ and -")
        if not self.comparisons:
            _refuse("comparisons", "nothing is compared", "add [[comparisons]]")
        for comparison in self.comparisons:
            for name in (comparison.arm, comparison.baseline):
                if name not in self.arms:
                    _refuse(
                        "comparisons",
                        f"there is no arm '{name}'",
                        f"use one of {', '.join(self.arms)}",
                    )
        for name, arm in self.arms.items():
            self._check_arm(name, arm)
        if not 0 < self.quality.margin < math.inf:
            _refuse("quality.margin", f"it is {self.quality.margin}", "use a positive number")
        if self.budget.blocks < 3:
            _refuse("budget.blocks", f"it is {self.budget.blocks}", "at least 3 give an interval")

    def _check_arm(self, name: str, arm: ArmSpec) -> None:
        given = [bool(arm.candidates), arm.as_arm is not None, arm.command is not None]
        if sum(given) != 1:
            _refuse(
                f"arms.{name}",
                f"{sum(given)} of candidates, as_arm and command are given",
                "give exactly one",
            )
        if arm.placement is not None:
            self._check_placed(name, arm)
        if arm.command is None and self.workload is None:
            _refuse("workload", f"arm '{name}' trains a model on nothing", "add [workload]")
        if arm.as_arm is not None and (
            arm.as_arm not in self.arms or self.arms[arm.as_arm].as_arm is not None
        ):
            _refuse(f"arms.{name}.as_arm", f"'{arm.as_arm}' is no arm of its own", "name another")
        for candidate in arm.candidates:
            for kind, key, table in (
                ("model", candidate.model, self.models),
                ("recipe", candidate.recipe, self.recipes),
            ):
                if key not in table:
                    _refuse(
                        f"arms.{name}.candidates",
                        f"there is no {kind} '{key}'",
                        f"use one of {', '.join(table) or 'none that exists'}",
                    )

    def _check_placed(self, name: str, arm: ArmSpec) -> None:
        if self.fleet is None:
            _refuse("fleet", f"arm '{name}' is placed on no fleet", "name a fleet file")
        if self.workload is None or self.workload.tokens is None:
            _refuse("workload.tokens", f"arm '{name}' has no length", "say how many tokens")
        if len(arm.candidates) != 1:
            _refuse(f"arms.{name}.candidates", "a placed arm is not tuned", "give exactly one")

    @property
    def needs_tuning(self) -> bool:
        return any(arm.command is None and arm.placement is None for arm in self.arms.values())

    @property
    def has_commands(self) -> bool:
        return any(arm.command is not None for arm in self.arms.values())

    def source_arm(self, name: str) -> str:
        """The arm whose model, recipe and lengths `name` runs with."""
        return self.arms[name].as_arm or name


def read_experiment(path: Path) -> tuple[Experiment, dict[str, Any]]:
    """The experiment, and the mapping as it was written (for the evidence)."""
    try:
        mapping = tomllib.loads(read_text(path))
    except tomllib.TOMLDecodeError as error:
        raise InputError(
            f"the file is not TOML: {error}", at=str(path), help="correct it"
        ) from error
    for name, model in mapping.get("models", {}).items():
        if isinstance(model, dict):
            model.setdefault("name", name)
    experiment = from_mapping(mapping, Experiment, at=str(path))
    if experiment.tuned is not None:
        experiment = replace(experiment, tuned=str(path.parent / experiment.tuned))
    if experiment.fleet is not None:
        fleet = path.parent / experiment.fleet
        if not fleet.is_file():
            _refuse("fleet", f"there is no file '{fleet}'", "name a fleet file beside this one")
        experiment = replace(experiment, fleet=str(fleet))
    return experiment, mapping


def _refuse(field_name: str, what: str, help: str) -> None:
    raise InputError(what, at=f"experiment, {field_name}", help=help)
