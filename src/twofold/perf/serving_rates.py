"""Speeds in serving: what dies, fabrics and engines reach of what the hardware is sold for.

Beside `rates`, which holds those of training: decoding lives on memory and on latencies that a
training step hides, and an engine spends time on the host for every step and every sequence.
`serving_efficiencies.toml` holds the fit (`benchmarks/fit_serving.py`).
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from twofold.document import from_mapping
from twofold.fleet import Accelerator, Node
from twofold.perf.collectives import Fabric
from twofold.perf.rates import HardwareColumns
from twofold.perf.speeds import hardware_columns
from twofold.plan import Precision

Array = NDArray[np.float64]
Column = Array | float

FEW_CURVES = 10
"""Published load curves with fewer of which a die counts as new."""
FITTED = Path(__file__).with_name("serving_efficiencies.toml")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingDie:
    """Reached over sold: products in 16, 8 and 4 bits, attention's arithmetic, memory; and
    the cost of one kernel beside its work. `num_curves` published load curves speak for it."""

    gemm: float
    fp8: float
    fp4: float
    attention: float
    memory: float
    call_s: float
    num_curves: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingFabric:
    """Bandwidth reached over sold, and the latency of one hop of a small message."""

    bandwidth: float
    latency_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingEngine:
    """Time on the host: per step, per sequence of a step, per token of a step, and `request_s` for
    a request on its way in. Its kernels cost `call_factor` times what the die's do on the mean."""

    step_s: float
    sequence_s: float
    token_s: float
    request_s: float
    call_factor: float
    num_curves: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Habit:
    """How a table's benchmark drives an engine, which no plan does: the share `waves` of the users
    whose prompts come at the same time (all start at once), and the steps a first token waits
    until it is shown (`wait_steps`; engines that stream every tenth or twentieth step)."""

    waves: float
    wait_steps: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingShared:
    """`overlap` of the shorter of arithmetic and reading weights is hidden behind the other;
    the busiest device's experts get `expert_imbalance` times their share; activations take
    `stream` of what their bytes would (fused kernels)."""

    overlap: float
    expert_imbalance: float
    stream: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingEfficiencies:
    """The whole fit; `spread` are the 90 % half-widths of ln of TPOT, TTFT and tokens/s, by
    familiarity with the die; `sources` the tables that were fitted.

    `habits` are those of benchmarks, by table and engine.
    """

    shared: ServingShared
    dies: dict[str, ServingDie]
    vendors: dict[str, ServingDie]
    fabrics: dict[str, ServingFabric]
    engines: dict[str, ServingEngine]
    habits: dict[str, Habit] = field(default_factory=dict)
    spread: dict[str, float] = field(default_factory=dict)
    sources: tuple[str, ...] = ()

    def die(self, accelerator: Accelerator) -> ServingDie:
        """Of the die, else of its vendor's accelerators, else of all vendors' together."""
        if accelerator.die in self.dies:
            return self.dies[accelerator.die or ""]
        return self.vendors.get(accelerator.vendor.lower(), self.vendors["all"])

    def fabric(self, name: str, scope: str) -> ServingFabric:
        return self.fabrics.get(name, self.fabrics[scope])

    def engine(self, name: str | None) -> ServingEngine:
        """Of the engine of that name, else the mean."""
        return self.engines.get(name or "all", self.engines["all"])

    def habit(self, name: str) -> Habit:
        """Of that table and engine, else of all."""
        return self.habits.get(name, self.habits["all"])

    def spread_of(self, accelerator: Accelerator, metric: str = "tpot") -> float:
        """Half-width of ln of a metric (90 %), wider for a die that the fit has not seen."""
        known = self.dies.get(accelerator.die or "")
        familiar = known is not None and known.num_curves >= FEW_CURVES
        return self.spread[f"{metric}, {'known die' if familiar else 'new die'}"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingRates:
    """Reached speeds of one replica's devices, floats or columns; `fabric` with its reached
    bandwidths and latencies."""

    narrow_flop_per_s: Column
    wide_flop_per_s: Column
    attention_flop_per_s: Column
    bytes_per_s: Column
    call_s: Column
    step_s: Column
    sequence_s: Column
    token_s: Column
    overlap: Column
    expert_imbalance: Column
    stream: Column
    fabric: Fabric


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingReach:
    """Reached over sold, overheads and latencies in seconds: floats, or columns of rows."""

    narrow: Column
    wide: Column
    attention: Column
    memory: Column
    call_s: Column
    up: Column
    up_latency_s: Column
    out: Column
    out_latency_s: Column
    step_s: Column
    sequence_s: Column
    token_s: Column


@cache
def fitted_serving(path: Path = FITTED) -> ServingEfficiencies:
    """The shipped fit."""
    with path.open("rb") as stream:
        return from_mapping(tomllib.load(stream), ServingEfficiencies, at=str(path))


def serving_rates(
    node: Node, precision: Precision, fit: ServingEfficiencies, engine: str | None = None
) -> ServingRates:
    """What one node's devices and links reach in that precision."""
    sold = hardware_columns(node, precision, 0.0)
    numbers = {f.name: float(np.ravel(getattr(sold, f.name))[0]) for f in fields(sold)}
    reach = serving_reach(node, precision, fit, engine)
    return reached_rates(HardwareColumns(**numbers), reach, fit.shared)  # type: ignore[arg-type]


def serving_reach(
    node: Node, precision: Precision, fit: ServingEfficiencies, engine: str | None
) -> ServingReach:
    """The fit's numbers for one node, precision and engine."""
    die, host = fit.die(node.accelerator), fit.engine(engine)
    up, out = node.link("scale-up"), node.link("scale-out")
    out_fit = fit.fabric(out.fabric if out else "", "scale-out")
    up_fit = fit.fabric(up.fabric, "scale-up") if up else out_fit
    narrow = {"fp8": die.fp8, "mxfp8": die.fp8, "nvfp4": die.fp4}.get(precision, die.gemm)
    return ServingReach(
        narrow=narrow,
        wide=die.gemm,
        attention=die.attention,
        memory=die.memory,
        call_s=die.call_s * host.call_factor,
        up=up_fit.bandwidth,
        up_latency_s=up_fit.latency_s,
        out=out_fit.bandwidth,
        out_latency_s=out_fit.latency_s,
        step_s=host.step_s,
        sequence_s=host.sequence_s,
        token_s=host.token_s,
    )


def reached_rates(
    sold: HardwareColumns, reach: ServingReach, shared: ServingShared
) -> ServingRates:
    """What is sold times what is reached, floats or columns."""
    return ServingRates(
        narrow_flop_per_s=sold.narrow_flop_per_s * reach.narrow,
        wide_flop_per_s=sold.wide_flop_per_s * reach.wide,
        attention_flop_per_s=sold.wide_flop_per_s * reach.attention,
        bytes_per_s=sold.bytes_per_s * reach.memory,
        call_s=reach.call_s,
        step_s=reach.step_s,
        sequence_s=reach.sequence_s,
        token_s=reach.token_s,
        overlap=shared.overlap,
        expert_imbalance=shared.expert_imbalance,
        stream=shared.stream,
        fabric=Fabric(
            domain=sold.scale_up_domain,
            up_bytes_per_s=sold.up_bytes_per_s * reach.up,
            up_latency_s=reach.up_latency_s,
            out_bytes_per_s=sold.out_bytes_per_s * reach.out,
            out_latency_s=reach.out_latency_s,
            mesh_pair_bytes_per_s=sold.mesh_pair_bytes_per_s * reach.up,
            torus_axes=sold.torus_axes,
        ),
    )
