"""The experiment file of a serving proof: who competes, under what load, within which target.

An arm is a plan served here, the plan that Twofold finds, or any OpenAI-compatible URL.
"""

from __future__ import annotations

import os
import re
import tomllib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from twofold.document import from_mapping, read_text
from twofold.errors import InputError
from twofold.model import Model
from twofold.plan import Precision
from twofold.serving_plan import ServingPlan
from twofold.units import parse_seconds
from twofold.workload import Recipe
from twofold.workload.serve import Arrivals, Lengths, Serve, SharedPrefix

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSpec:
    """How the served weights come about: trained here once, and kept for later proofs."""

    recipe: Recipe
    text: str = "stdlib"
    seq_len: int = 256
    tokens: int = 200_000


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadSpec:
    """What requests are like. At each rate at least `requests` are judged, for at least
    `seconds`, after `warmup_requests`."""

    input: Lengths
    output: Lengths
    shared_prefix: SharedPrefix | None = None
    requests: int = 24
    warmup_requests: int = 3
    seconds: float = 3.0

    def at_rate(self, rate_per_s: float, name: str) -> Serve:
        return self._with(Arrivals(rate_per_s=rate_per_s), name, self.requests)

    def with_users(self, users: int, name: str, requests: int) -> Serve:
        return self._with(Arrivals(kind="closed", users=users), name, requests)

    def offline(self, name: str, requests: int) -> Serve:
        return self._with(Arrivals(kind="offline"), name, requests)

    def _with(self, arrivals: Arrivals, name: str, requests: int) -> Serve:
        return Serve(
            name=name,
            arrivals=arrivals,
            input=self.input,
            output=self.output,
            shared_prefix=self.shared_prefix,
            num_requests=requests,
            warmup_requests=0 if arrivals.kind == "offline" else self.warmup_requests,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetSpec:
    """Latency targets as multiples of what the first baseline takes for one user alone; the
    claim is made at `claimed`."""

    times_unloaded: dict[str, float] = field(
        default_factory=lambda: {"tight": 2.0, "middle": 3.0, "loose": 6.0}
    )
    claimed: str = "middle"
    attainment: float = 0.9
    unloaded_requests: int = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerSpec:
    """`epsilon` is the gap between the two most likely tokens (in log probability) under which
    a first difference counts as a near tie. `margin` is that of held-out loss, nats per token."""

    prompts: int = 12
    tokens: int = 24
    epsilon: float = 1e-3
    margin: float = 0.005
    windows: int = 8
    window_tokens: int = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class TuningSpec:
    """What arms that are tuned may choose from, the baselines as well as the planned one."""

    threads: tuple[int, ...] = ()
    precisions: tuple[Precision, ...] = ("fp32",)


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetSpec:
    blocks: int = 3
    wall: str = "6min"
    rates: int = 4

    @property
    def wall_s(self) -> float:
        return parse_seconds(self.wall)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingArmSpec:
    """One of `plan` (fields of a serving plan), `planned` (Twofold chooses) and `url`.

    With `tune` the threads and the precision of `plan` are chosen from those of [tuning] by
    predicted goodput, as the planned arm's are.
    """

    title: str = ""
    plan: dict[str, Any] | None = None
    planned: bool = False
    tune: bool = False
    url: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingComparison:
    arm: str
    baseline: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingExperiment:
    """One experiment file, checked. `attribution` names the arms between which levers are told
    apart, the one without and the one with them."""

    name: str
    kind: Literal["serving"]
    arms: dict[str, ServingArmSpec]
    comparisons: tuple[ServingComparison, ...]
    workload: LoadSpec
    model: Model | None = None
    weights: str | None = None
    training: TrainingSpec | None = None
    targets: TargetSpec = field(default_factory=TargetSpec)
    quality: AnswerSpec = field(default_factory=AnswerSpec)
    tuning: TuningSpec = field(default_factory=TuningSpec)
    budget: BudgetSpec = field(default_factory=BudgetSpec)
    attribution: tuple[str, str] | None = None

    def __post_init__(self) -> None:
        for place, name in [("name", self.name), *((f"arms.{name}", name) for name in self.arms)]:
            if not _NAME.fullmatch(name):
                _refuse(place, f"'{name}' cannot name a folder", "use letters, digits, . _ and -")
        if not self.comparisons:
            _refuse("comparisons", "nothing is compared", "add [[comparisons]]")
        named = [n for c in self.comparisons for n in (c.arm, c.baseline)]
        for name in [*named, *(self.attribution or ())]:
            if name not in self.arms:
                _refuse("comparisons", f"there is no arm '{name}'", f"use {', '.join(self.arms)}")
        for name, arm in self.arms.items():
            given = sum((arm.plan is not None, arm.planned, arm.url is not None))
            if given != 1:
                _refuse(f"arms.{name}", f"{given} of plan, planned and url are given", "give one")
            if arm.url is None and self.model is None:
                _refuse("model", f"arm '{name}' serves no model", "add [model], or give a url")
        for name in self.attribution or ():
            if self.arms[name].url is not None:
                _refuse("attribution", f"the levers of '{name}', a URL, are not known", "leave out")
        if self.targets.claimed not in self.targets.times_unloaded:
            _refuse("targets.claimed", f"'{self.targets.claimed}' is no target", "name one")
        if self.budget.blocks < 3 or self.budget.rates < 2:
            _refuse(
                "budget",
                f"{self.budget.blocks} blocks, {self.budget.rates} rates",
                "at least 3 blocks give an interval, and at least 2 rates a crossing",
            )

    def plan_of(self, name: str) -> ServingPlan:
        """The plan of an arm that states one; with all cores unless it says, as PyTorch does."""
        plan = {"threads": os.cpu_count() or 1, **(self.arms[name].plan or {})}
        return from_mapping(plan, ServingPlan, at=f"experiment, arms.{name}.plan")

    @property
    def num_served_here(self) -> int:
        return sum(arm.url is None for arm in self.arms.values())


def read_serving_experiment(path: Path) -> tuple[ServingExperiment, dict[str, Any]]:
    """The experiment, and the mapping as it was written (for the evidence)."""
    mapping = read_mapping(path)
    experiment = experiment_of(mapping, at=str(path))
    if experiment.weights not in (None, "random"):
        experiment = replace(experiment, weights=str(path.parent / str(experiment.weights)))
    return experiment, mapping


def experiment_of(mapping: dict[str, Any], *, at: str) -> ServingExperiment:
    """Of a file's content, checked."""
    model = mapping.get("model")
    if isinstance(model, dict):
        model.setdefault("name", mapping.get("name", "model"))
    return from_mapping(mapping, ServingExperiment, at=at)


def is_serving_experiment(path: Path) -> bool:
    return read_mapping(path).get("kind") == "serving"


def read_mapping(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(read_text(path))
    except tomllib.TOMLDecodeError as error:
        raise InputError(
            f"the file is not TOML: {error}", at=str(path), help="correct it"
        ) from error


def _refuse(field_name: str, what: str, help: str) -> None:
    raise InputError(what, at=f"experiment, {field_name}", help=help)
