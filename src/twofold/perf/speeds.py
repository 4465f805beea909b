"""From a node of the catalog and the fitted efficiencies to the rates of a precision on it.

`efficiencies.toml` beside this file holds the fit: per die and per fabric how much of what is
sold is reached, with the number of published runs behind it; what nobody measured takes the
mean of its vendor, then of all, and says so.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from twofold.document import from_mapping
from twofold.errors import InputError
from twofold.fleet import Accelerator, Node
from twofold.perf.rates import EfficiencyColumns, HardwareColumns, Rates, Shared, reached
from twofold.plan import Precision

Array = NDArray[np.float64]

FITTED = Path(__file__).with_name("efficiencies.toml")
NARROW_KEYS: dict[Precision, tuple[str, ...]] = {
    "fp32": ("fp32",),
    "tf32": ("tf32",),
    "bf16": ("bf16",),
    "fp16": ("fp16", "bf16"),
    "fp8": ("fp8",),
    "mxfp8": ("mxfp8", "fp8"),
    "nvfp4": ("nvfp4", "fp4"),
}
"""Figures that a precision's products run at, in order of preference."""

FEW_RUNS = 10
"""Published runs with fewer of which a die counts as new."""

_TORUS_AXES = {"torus2d": 2.0, "torus3d": 3.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class DieEfficiency:
    """Reached over sold, for one die: at most six numbers. `num_runs` published runs speak for
    it; with none it is the mean of others. `pace` and `half_width` (of ln time, 90 %; 0: by
    familiarity) are a site's own, from `calibrate --from`."""

    gemm: float
    fp8: float
    fp4: float
    attention: float
    memory: float
    call_s: float
    num_runs: int = 0
    pace: float = 1.0
    half_width: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FabricEfficiency:
    bandwidth: float
    latency_s: float
    num_runs: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Efficiencies:
    """The whole fit. `spread` are the 90 % half-widths of ln time by familiarity; `frameworks`
    the habits of those that two sources show, as ln of their time over the mean's: rows that name
    one are predicted with it, plans name none. `sources` are the tables that were fitted."""

    shared: Shared
    dies: dict[str, DieEfficiency]
    vendors: dict[str, DieEfficiency]
    fabrics: dict[str, FabricEfficiency]
    frameworks: dict[str, float] = field(default_factory=dict)
    sources: tuple[str, ...] = ()
    spread: dict[str, float] = field(default_factory=dict)

    def die(self, accelerator: Accelerator) -> DieEfficiency:
        """Of the die, else of its vendor's accelerators, else of all vendors' together."""
        if accelerator.die in self.dies:
            return self.dies[accelerator.die or ""]
        if accelerator.kind == "cpu":
            return self.vendors["all"]
        return self.vendors.get(accelerator.vendor.lower(), self.vendors["all"])

    def fabric(self, name: str, scope: str) -> FabricEfficiency:
        return self.fabrics.get(name, self.fabrics[scope])

    def spread_of(self, accelerator: Accelerator) -> float:
        """Half-width of ln time (90 %), by how well the die is known.

        A die of a vendor that was never measured, and a processor priced like an accelerator,
        are further away than any that was left out of a fit: twice as wide (assumed).
        """
        die = self.dies.get(accelerator.die or "")
        if die is not None and die.half_width > 0:
            return die.half_width
        if die is not None and die.num_runs >= FEW_RUNS:
            return self.spread["known die"]
        stranger = accelerator.kind == "cpu" or accelerator.vendor.lower() not in self.vendors
        return self.spread["new die"] * (2.0 if stranger else 1.0)


@cache
def fitted_efficiencies(path: Path = FITTED) -> Efficiencies:
    """The shipped fit, or one made by `twofold calibrate --from`."""
    with path.open("rb") as stream:
        return from_mapping(tomllib.load(stream), Efficiencies, at=str(path))


def peak_flop_per_s(accelerator: Accelerator, precision: Precision) -> float:
    """The dense rate that products in that precision are sold at; InputError where the device
    has none or it is not known."""
    for key in NARROW_KEYS[precision]:
        if key in accelerator.flop_per_s:
            return accelerator.flop_per_s[key].value
    has = ", ".join(accelerator.flop_per_s) or "none known"
    raise InputError(
        f"'{accelerator.name}' has no {precision} matrix rate that is known",
        at="plan, precision",
        help=f"use one of: {has}; or give the figure in a catalog overlay",
    )


def _wide_flop_per_s(accelerator: Accelerator, precision: Precision) -> float:
    """What stays beside narrow products runs in 16 bits, or in the plan's own wide format."""
    wide: Precision = "bf16" if precision in ("fp8", "mxfp8", "nvfp4") else precision
    return peak_flop_per_s(accelerator, wide)


def hardware_columns(
    node: Node, precision: Precision, age_months: float, num_rows: int = 1
) -> HardwareColumns:
    """What one node's devices and links are sold for, repeated for `num_rows` plans.

    A device without a scale-up link talks to all others over the scale-out; a lone machine
    without scale-out needs none, and a plan that crosses one is refused by the search.
    """
    accelerator = node.accelerator
    up, out, host = node.link("scale-up"), node.link("scale-out"), node.link("host")
    bandwidth = accelerator.memory.bandwidth_bytes_per_s
    if bandwidth is None:
        raise InputError(
            f"the memory bandwidth of '{accelerator.name}' is not known",
            at=f"accelerator '{accelerator.name}', memory.bandwidth",
            help="give the figure in a catalog overlay",
        )
    one = np.ones(num_rows)
    out_bandwidth = out.bandwidth_bytes_per_s.value if out else np.inf
    up_bandwidth = up.bandwidth_bytes_per_s.value if up else out_bandwidth
    mesh = up is not None and up.topology == "full-mesh" and up.pair_bytes_per_s is not None
    pair = up.pair_bytes_per_s.value if mesh and up and up.pair_bytes_per_s else np.inf
    return HardwareColumns(
        narrow_flop_per_s=peak_flop_per_s(accelerator, precision) * one,
        wide_flop_per_s=_wide_flop_per_s(accelerator, precision) * one,
        bytes_per_s=bandwidth.value * one,
        host_bytes_per_s=(host.bandwidth_bytes_per_s.value if host else 16e9) * one,
        scale_up_domain=float(up.domain or node.num_accelerators) * one if up else one,
        up_bytes_per_s=up_bandwidth * one,
        out_bytes_per_s=out_bandwidth * one,
        mesh_pair_bytes_per_s=pair * one,
        torus_axes=_TORUS_AXES.get(up.topology if up else "", 0.0) * one,
        age_months=age_months * one,
    )


def efficiency_columns(
    node: Node, precision: Precision, fit: Efficiencies, num_rows: int = 1
) -> EfficiencyColumns:
    """How much of it is reached, by the fit."""
    die = fit.die(node.accelerator)
    up, out = node.link("scale-up"), node.link("scale-out")
    up_fit = fit.fabric(up.fabric if up else "", "scale-up")
    out_fit = fit.fabric(out.fabric if out else "", "scale-out")
    narrow = {"fp8": die.fp8, "mxfp8": die.fp8, "nvfp4": die.fp4}.get(precision, die.gemm)
    one = np.ones(num_rows)
    return EfficiencyColumns(
        narrow=narrow * one,
        wide=die.gemm * one,
        attention=die.attention * one,
        memory=die.memory * one,
        call_s=die.call_s * one,
        up=(up_fit if up else out_fit).bandwidth * one,
        up_latency_s=(up_fit if up else out_fit).latency_s * one,
        out=out_fit.bandwidth * one,
        out_latency_s=out_fit.latency_s * one,
        pace=die.pace * one,
    )


def node_rates(
    node: Node, precision: Precision, age_months: float, fit: Efficiencies, num_rows: int = 1
) -> Rates:
    """Reached speeds of `num_rows` plans in one precision on one kind of node."""
    return reached(
        hardware_columns(node, precision, age_months, num_rows),
        efficiency_columns(node, precision, fit, num_rows),
        fit.shared,
    )


def age_months(launched: str | None, date: str) -> float:
    """Months from the die's launch ("2022-10") to the date ("2026-11", "2026-11-24", "2026").

    A device whose launch is not known counts as two years old.
    """
    if launched is None:
        return 24.0
    return max(0.0, _months(date) - _months(launched))


def _months(date: str) -> float:
    parts = [int(part) for part in date.split("-") if part]
    year, month = parts[0], parts[1] if len(parts) > 1 else 7
    return 12.0 * year + month
