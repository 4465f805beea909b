"""What an engine states about itself: which levers it lacks, how it writes a plan and reads it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from twofold.errors import InputError
from twofold.fleet import AcceleratorKind
from twofold.model import Model
from twofold.plan import Plan
from twofold.workload import Train

NO_POOL = "local"
"""The pool of what was read back: which machines run it is the launcher's matter."""
Files = dict[str, str]
"""Texts by file name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What is handed over. `tokens` is the file with the training text as flat token numbers of
    `token_dtype` (None: the text is unspecified, and random tokens stand in for it). `num_slices`
    counts the scale-up domains of TPUs that the plan fills."""

    plan: Plan
    model: Model
    workload: Train
    seed: int = 0
    num_nodes: int = 1
    num_slices: int = 1
    device: AcceleratorKind = "gpu"
    tokens: str | None = None
    token_dtype: str = "uint16"

    @property
    def on_cpu(self) -> bool:
        return self.device == "cpu"

    @property
    def accumulation(self) -> int:
        """Micro-batches of one data rank in an optimizer step."""
        return self.workload.recipe.global_batch // (self.plan.micro_batch * self.plan.data_degree)

    @property
    def ranks_per_node(self) -> int:
        return self.plan.num_ranks // self.num_nodes


class Setting(NamedTuple):
    """One line of an engine's configuration. True is a flag without a value, and what has no
    `comes_from` is the engine's need, not the plan's."""

    option: str
    value: Any
    comes_from: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Lack:
    """A value of a lever that the engine cannot express, and the nearest that it can.

    `what` and `help` may name fields: {plan.tensor_degree}, {model.heads}, {workload.seq_len}.
    """

    lever: str
    refuses: Callable[[Case], bool]
    what: str
    help: str

    @property
    def at(self) -> str:
        of_others = self.lever.startswith(("model", "workload"))
        return self.lever if of_others else f"plan, {self.lever}"

    def error(self, case: Case, engine: str) -> InputError:
        named = {"plan": case.plan, "model": case.model, "workload": case.workload}
        return InputError(
            self.what.format(engine=engine, **named),
            at=self.at,
            help=self.help.format(engine=engine, **named),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """`version` is that whose options were read. `write` gives the files of a plan that breaks
    none of the `lacks`; `read` gives the plan's levers back from them.
    `ignores` are levers that the engine settles by itself, whatever their value, and how."""

    name: str
    title: str
    version: str
    lacks: tuple[Lack, ...]
    ignores: dict[str, str] = field(default_factory=dict)
    write: Callable[[Case], Files]
    read: Callable[[Mapping[str, str]], Plan]

    def refusal(self, case: Case) -> InputError | None:
        """The first lever that cannot be expressed, or None."""
        for lack in self.lacks:
            if lack.refuses(case):
                return lack.error(case, self.title)
        return None
