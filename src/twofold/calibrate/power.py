"""Power of a processor that has no counter, from published coefficients. Modelled, never proof."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twofold.figure import Figure

_SOURCE = "Cloud Carbon Footprint coefficients, watt per vCPU (ccf-coefficients, commit b0032d9)"

_WATT_PER_THREAD: dict[tuple[str, int, int], tuple[float, float]] = {
    ("AuthenticAMD", 23, 49): (0.474, 1.693),
    ("AuthenticAMD", 25, 1): (0.456, 1.957),
    ("AuthenticAMD", 25, 17): (0.739, 2.282),
    ("GenuineIntel", 6, 106): (0.767, 3.758),
    ("GenuineIntel", 6, 143): (1.036, 4.160),
    ("GenuineIntel", 6, 207): (0.814, 4.482),
    ("GenuineIntel", 6, 173): (0.582, 2.527),
}
"""(vendor, family, model) -> idle and full watt per hardware thread: EPYC of the 2nd, 3rd and
4th generation, Ice Lake, Sapphire Rapids, Emerald Rapids, Granite Rapids."""


def power_figures(machine: Mapping[str, Any], date: str) -> tuple[Figure | None, Figure | None]:
    """Idle and full power of the threads this machine has; None where the part is not listed."""
    key = (machine.get("vendor"), machine.get("family"), machine.get("model"))
    coefficients = _WATT_PER_THREAD.get(key)  # type: ignore[arg-type]
    if coefficients is None:
        return None, None
    idle_w, max_w = (
        Figure(
            value=watt * machine["threads"], unit="W", basis="derived", source=_SOURCE, date=date
        )
        for watt in coefficients
    )
    return idle_w, max_w
