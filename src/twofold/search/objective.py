"""What a plan is to be good at, and the limits it must keep beside the memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from twofold.errors import InputError
from twofold.perf.fleet import FleetColumns

Array = NDArray[np.float64]
Objective = Literal["time", "cost", "energy", "carbon"]

_MISSING: dict[Objective, str] = {
    "time": "",
    "cost": "the price of the pool is not known",
    "energy": "the power of its devices is not known",
    "carbon": "the power of its devices or the carbon of its grid is not known",
}


def value_of(columns: FleetColumns, objective: Objective) -> Array:
    """What is to be small. InputError where a figure it needs is missing."""
    value = {
        "time": columns.time_s,
        "cost": columns.cost_usd,
        "energy": columns.energy_j,
        "carbon": columns.carbon_kgco2e,
    }[objective]
    if value is None:
        raise InputError(
            f"plans cannot be compared by {objective}: {_MISSING[objective]}",
            at="fleet",
            help="give the figure in a catalog overlay or on the command line",
        )
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Of the whole run; None: no limit. Power is the mean at the facility's meter."""

    deadline_s: float | None = None
    budget_usd: float | None = None
    power_cap_w: float | None = None

    @property
    def grows_with_devices(self) -> bool:
        """Whether fewer devices could keep what more do not."""
        return self.budget_usd is not None or self.power_cap_w is not None

    def broken(self, columns: FleetColumns) -> Iterator[tuple[str, NDArray[np.bool_]]]:
        """Each limit with the plans that break it."""
        if self.deadline_s is not None:
            yield "ends after the deadline", columns.time_s > self.deadline_s
        if self.budget_usd is not None:
            yield "costs more than the budget", value_of(columns, "cost") > self.budget_usd
        if self.power_cap_w is not None:
            power_w = value_of(columns, "energy") / columns.time_s
            yield "draws more than the power cap", power_w > self.power_cap_w

    def kept(self, columns: FleetColumns) -> NDArray[np.bool_]:
        """The plans that keep them all."""
        kept = np.ones(len(columns.time_s), dtype=bool)
        for _, broken in self.broken(columns):
            kept &= ~broken
        return kept
