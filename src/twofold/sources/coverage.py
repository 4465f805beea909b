"""How much of a trace was understood: nothing is dropped in silence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from twofold.model import Model
from twofold.sources.acts import Act
from twofold.sources.trace import Trace


@dataclass(frozen=True, slots=True, kw_only=True)
class Unrecognised:
    """An operation of the framework that no rule names, with its share of all work."""

    source: str
    count: int
    flop_fraction: float
    bytes_fraction: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """A model from a framework's code, and what was seen on the way.

    `family` says as what it was recognised, `why_chain` why it is no transformer for the search,
    `assumed` what the user did not say. `unused_parameters` no step reads.
    """

    model: Model
    framework: str
    sample: str
    family: str
    why_chain: str | None
    num_steps: int
    unrecognised: tuple[Unrecognised, ...]
    unused_parameters: int
    assumed: tuple[str, ...]

    @property
    def unrecognised_flop_fraction(self) -> float:
        return sum(one.flop_fraction for one in self.unrecognised)

    @property
    def unrecognised_bytes_fraction(self) -> float:
        return sum(one.bytes_fraction for one in self.unrecognised)


def act_flop(act: Act) -> float:
    """All arithmetic of an act, forward: a vector operation one for each element."""
    product = act.product
    size = float(product.batch) * product.m * product.n * product.k
    if act.kind == "vector":
        return size
    return (2.0 if act.kind == "gemm" else 4.0) * size


def act_elements(trace: Trace, act: Act) -> float:
    """Elements read and written."""
    touched = (*act.reads, *act.writes, *act.parameters, *act.shared)
    return float(sum(trace.values[value].elements for value in touched))


def unrecognised(trace: Trace, acts: Sequence[Act]) -> tuple[Unrecognised, ...]:
    """The operations without a rule, largest first."""
    flop = sum(act_flop(act) for act in acts) or 1.0
    moved = sum(act_elements(trace, act) for act in acts) or 1.0
    groups: dict[str, list[Act]] = {}
    for act in acts:
        if not act.recognised:
            groups.setdefault(act.source, []).append(act)
    found = [
        Unrecognised(
            source=source,
            count=len(members),
            flop_fraction=sum(act_flop(act) for act in members) / flop,
            bytes_fraction=sum(act_elements(trace, act) for act in members) / moved,
        )
        for source, members in groups.items()
    ]
    return tuple(sorted(found, key=lambda one: -one.bytes_fraction))


def unused_parameters(trace: Trace, acts: Sequence[Act]) -> int:
    used = {p for act in acts for p in act.parameters}
    return sum(
        value.elements
        for index, value in enumerate(trace.values)
        if value.origin == "parameter" and index not in used
    )
