"""A number that knows where it comes from."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from twofold.errors import InputError

Basis = Literal["user", "measured", "published", "datasheet", "derived", "assumed", "announced"]

PRECEDENCE: tuple[Basis, ...] = (
    "user",
    "measured",
    "published",
    "datasheet",
    "derived",
    "assumed",
    "announced",
)
"""Which of two figures for the same thing is believed: the earlier basis wins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One value in SI units. `spread` is the relative half-width seen when it was measured."""

    value: float
    unit: str
    basis: Basis
    source: str
    date: str
    spread: float | None = None

    def __post_init__(self) -> None:
        if not math.isfinite(self.value) or self.value < 0:
            raise InputError(
                f"a figure of {self.value} {self.unit} is not a finite, non-negative number",
                at=self.source,
                help="correct it, or leave the figure out: a missing one is refused where needed",
            )
