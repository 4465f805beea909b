"""Efficiencies of dies and fabrics from published runs: one robust fit on ln time.

Every die has at most six numbers (products in 16, 8 and 4 bits, attention, memory, overhead of
a call) and every fabric two; all are logs, fractions of a rate held below 1, pulled towards their
vendor's mean and that towards the mean of all, so that a die with three rows moves little and one
with none inherits. Sources and frameworks get zero-mean offsets, so that one table's habits do not
become physics; those of sources are predicted as zero, and their scatter belongs to the interval.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from twofold.calibrate.pricing import (
    EFFICIENCY_FIELDS,
    Candidates,
    PricedRows,
    candidate_bytes,
    candidate_step_s,
    chosen_candidates,
    efficiency_of,
)
from twofold.perf.rates import EfficiencyColumns, Shared
from twofold.perf.speeds import DieEfficiency, Efficiencies, FabricEfficiency

Array = NDArray[np.float64]

_START = {
    "gemm": 0.87, "fp8": 0.75, "fp4": 0.6, "attention": 0.5, "memory": 0.7, "call_s": 1.8e-5,
}  # fmt: skip
_SHARED: dict[str, tuple[float, float, float]] = {
    "gemm_byte_share": (0.5, 0.0, 1.0),
    "launch_overlap": (0.85, 0.0, 1.0),
    "tensor_overlap": (0.3, 0.0, 1.0),
    "expert_overlap": (0.3, 0.0, 1.0),
    "data_overlap": (0.8, 0.0, 1.0),
    "pipeline_overlap": (0.5, 0.0, 1.0),
    "expert_imbalance": (1.15, 1.0, 2.5),
    "ragged_slowdown": (1.3, 1.0, 3.0),
    "wave_elements": (1e6, 0.0, 4e6),
    "fused_stream": (0.9, 0.2, 1.2),
    "unfused_stream": (0.8, 0.4, 3.0),
    "unfused_calls": (2.4, 1.0, 8.0),
    "update_stream": (0.67, 0.3, 1.2),
    "step_s": (0.008, 1e-4, 0.1),
    "jitter": (0.006, 0.0, 0.05),
    "era_loss": (0.2, 0.0, 0.5),
    "era_half_months": (12.0, 3.0, 36.0),
}
"""First guess and bounds of what all devices share."""
_PRIOR_WIDTH = {
    "gemm": 0.12, "fp8": 0.12, "fp4": 0.15, "attention": 0.3, "memory": 0.3, "call_s": 0.2,
}  # fmt: skip
_DIE_FRACTION = 1.0
"""A die strays less from its vendor than a vendor from all."""
_KNEE = 8.0
_BOUNDED = np.array([name != "call_s" for name in EFFICIENCY_FIELDS])
"""Fractions of what is sold stay below 1: nothing is faster than its roof."""
_FABRIC_START = {"scale-up": (0.75, 8e-6), "scale-out": (0.65, 2e-5)}
_FABRIC_WIDTH = (0.3, 0.5)
_SHARED_WIDTH = 0.5
_OFFSET_WIDTH = {"source": 0.04, "framework": 0.10}
_NOISE = 0.06
"""Scatter of ln time between equal runs by different hands (MLPerf: 6 to 18 %)."""
_GRADE_WEIGHT = {"B": 0.5, "C": 0.25}
"""Of rows whose figures or settings were read less surely: 1.4 and 2 times the noise."""
_GUESSED_WEIGHT = 0.5
"""Of rows whose layout is not stated: the best of many is a guess that errs to the fast side."""
_ROBUST = 3.0
_ROUNDS = 2
_MAX_STEPS = 40
_CONVERGED = 1e-4
_STEP = 1e-4


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where in the vector of unknowns each number lies."""

    vendors: tuple[str, ...]
    dies: tuple[str, ...]
    vendor_of: dict[str, str]
    ups: tuple[str, ...]
    outs: tuple[str, ...]
    offsets: tuple[tuple[str, str], ...]
    num_sources: dict[str, int]
    """Of each framework: a habit that one table alone shows may be the table's."""

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        kinds = len(EFFICIENCY_FIELDS)
        return {
            "shared": (len(_SHARED),),
            "all": (kinds,),
            "vendors": (len(self.vendors), kinds),
            "dies": (len(self.dies), kinds),
            "fabric": (2, 2),
            "ups": (len(self.ups), 2),
            "outs": (len(self.outs), 2),
            "offsets": (len(self.offsets),),
        }

    def split(self, unknowns: Array) -> dict[str, Array]:
        parts, start = {}, 0
        for name, shape in self.shapes.items():
            size = int(np.prod(shape))
            parts[name] = unknowns[start : start + size].reshape(shape)
            start += size
        return parts

    @property
    def size(self) -> int:
        return sum(int(np.prod(shape)) for shape in self.shapes.values())


def fit_efficiencies(
    priced: PricedRows,
    use: NDArray[np.bool_] | None = None,
    start: Efficiencies | None = None,
    rounds: int = _ROUNDS,
) -> Efficiencies:
    """Fit the rows in `use` (all measured ones by default).

    Which plan an incomplete row ran is chosen by the fit itself, from `start` (the built-in
    first guess) on, and chosen again in every round.
    """
    use = np.isfinite(priced.measured_s) if use is None else use & np.isfinite(priced.measured_s)
    rows = np.flatnonzero(use)
    layout = _layout(priced, rows)
    unknowns = np.zeros(layout.size)
    fit = start or _efficiencies(layout, unknowns, Counter(), Counter())
    weights = row_weights(priced, rows)
    for _ in range(rounds):
        chosen = _choice(priced, fit)[rows]
        candidates = priced.candidates.take(chosen)
        problem = _Problem(layout, candidates, priced, rows, weights)
        unknowns = problem.solve(unknowns)
        dies = Counter(candidates.die)
        fabrics = Counter(candidates.up_fabric) + Counter(candidates.out_fabric)
        fit = _efficiencies(layout, unknowns, dies, fabrics)
    return fit


def predict(priced: PricedRows, fit: Efficiencies) -> tuple[Array, NDArray[np.intp]]:
    """Predicted step time of every row, and the candidate it stands on."""
    efficiency = efficiency_of(priced.candidates, fit)
    step_s = candidate_step_s(priced.candidates, efficiency, fit.shared)
    chosen = chosen_candidates(priced.candidates, step_s, candidate_bytes(priced.candidates))
    habits = [fit.frameworks.get(framework_family(r.label("framework")), 0.0) for r in priced.rows]
    return step_s[chosen] * np.exp(habits), chosen


def _choice(priced: PricedRows, fit: Efficiencies) -> NDArray[np.intp]:
    return predict(priced, fit)[1]


def row_weights(priced: PricedRows, rows: NDArray[np.intp]) -> Array:
    """1 / size of the repeat group, then each source as the square root of its groups; less for
    rows that are less sure."""
    groups = [priced.rows[i].label("repeat_group") or f"row {i}" for i in rows]
    sources = [priced.rows[i].label("source_id") for i in rows]
    size = Counter(groups)
    weight = np.array([1.0 / size[group] for group in groups])
    of_source: dict[str, float] = defaultdict(float)
    for source, value in zip(sources, weight, strict=True):
        of_source[source] += value
    sure = np.array([_sureness(priced, i) for i in rows])
    result: Array = sure * weight / np.sqrt([of_source[source] for source in sources])
    return result


def _sureness(priced: PricedRows, row: int) -> float:
    """Weight of a row beside one that was read surely and states its layout."""
    published = priced.rows[row]
    stated = any(published.number(name) is not None for name in ("tp", "pp"))
    guessed = not stated and len(priced.settings[row].plans) > 1
    weight = _GRADE_WEIGHT.get(published.label("quality"), 1.0)
    return weight * (_GUESSED_WEIGHT if guessed else 1.0)


def _layout(priced: PricedRows, rows: NDArray[np.intp]) -> _Layout:
    owned = np.isin(priced.candidates.owner, rows)
    where = np.flatnonzero(owned)
    c = priced.candidates
    vendor_of = {c.die[i]: c.vendor[i] for i in where}
    offsets = sorted(
        {("source", priced.rows[i].label("source_id")) for i in rows}
        | {("framework", framework_family(priced.rows[i].label("framework"))) for i in rows}
    )
    return _Layout(
        vendors=tuple(sorted(set(vendor_of.values()))),
        dies=tuple(sorted(vendor_of)),
        vendor_of=vendor_of,
        ups=tuple(sorted({c.up_fabric[i] for i in where})),
        outs=tuple(sorted({c.out_fabric[i] for i in where})),
        offsets=tuple(offsets),
        num_sources=_num_sources(priced, rows),
    )


def _num_sources(priced: PricedRows, rows: NDArray[np.intp]) -> dict[str, int]:
    sources: dict[str, set[str]] = defaultdict(set)
    for i in rows:
        row = priced.rows[i]
        sources[framework_family(row.label("framework"))].add(row.label("source_id"))
    return {name: 0 if name == "other" else len(found) for name, found in sources.items()}


def _values(unknowns: Array) -> Array:
    """Efficiencies [.., fields] from unknowns that are 0 at the first guess: x of the guess times
    e^unknown, and fractions smoothly held below 1, x / (1 + x^8)^(1/8)."""
    raw = np.array([_START[name] for name in EFFICIENCY_FIELDS]) * np.exp(unknowns)
    return np.where(_BOUNDED, below_one(raw), raw)


def below_one(raw: Array) -> Array:
    """x / (1 + x^8)^(1/8): itself where small, never past 1."""
    return np.asarray(raw * (1.0 + raw**_KNEE) ** (-1.0 / _KNEE))


def _fabric_values(scope: str, unknowns: Array) -> Array:
    """Bandwidth reached and latency, [.., 2]. Switches that add pass 1: 1.07 was measured inside
    an H100 machine (NVLink SHARP), so the bandwidth is not held below what is sold."""
    return np.asarray(np.array(_FABRIC_START[scope]) * np.exp(unknowns))


def framework_family(text: str) -> str:
    lowered = text.lower()
    families = (
        "deepspeed",
        "bridge",
        "maxtext",
        "foundry",
        "nemo",
        "megatron",
        "neuron",
        "lightning",
    )
    return next((word for word in families if word in lowered), "other")


def _shared(values: Array) -> Shared:
    """Unknowns are logits within bounds, zero at the starting value."""
    result = {}
    for value, (name, (guess, low, high)) in zip(values, _SHARED.items(), strict=True):
        share = (guess - low) / (high - low)
        share = min(max(share, 0.02), 0.98)
        logit = np.log(share / (1.0 - share)) + value
        result[name] = float(low + (high - low) / (1.0 + np.exp(-logit)))
    return Shared(**result)


def _efficiencies(
    layout: _Layout, unknowns: Array, die_runs: Counter[str], fabric_runs: Counter[str]
) -> Efficiencies:
    parts = layout.split(unknowns)
    base = parts["all"]

    def die(unknown: Array, runs: int) -> DieEfficiency:
        reached = (float(value) for value in _values(unknown))
        values = dict(zip(EFFICIENCY_FIELDS, reached, strict=True))
        return DieEfficiency(**values, num_runs=runs)

    vendors = {name: base + parts["vendors"][i] for i, name in enumerate(layout.vendors)}
    fabrics: dict[str, FabricEfficiency] = {}
    for place, (scope, names, key) in enumerate(
        (("scale-up", layout.ups, "ups"), ("scale-out", layout.outs, "outs"))
    ):
        mean = parts["fabric"][place]
        bandwidth, latency_s = _fabric_values(scope, mean)
        fabrics[scope] = FabricEfficiency(bandwidth=float(bandwidth), latency_s=float(latency_s))
        for i, name in enumerate(names):
            if name == scope:
                continue
            bandwidth, latency_s = _fabric_values(scope, mean + parts[key][i])
            fabrics[name] = FabricEfficiency(
                bandwidth=float(bandwidth), latency_s=float(latency_s), num_runs=fabric_runs[name]
            )
    return Efficiencies(
        shared=_shared(parts["shared"]),
        dies={
            name: die(vendors[layout.vendor_of[name]] + parts["dies"][i], die_runs[name])
            for i, name in enumerate(layout.dies)
        },
        vendors={"all": die(base, 0)} | {name: die(logs, 0) for name, logs in vendors.items()},
        fabrics=fabrics,
        frameworks={
            name: float(parts["offsets"][i])
            for i, (kind, name) in enumerate(layout.offsets)
            if kind == "framework" and layout.num_sources[name] > 1
        },
        sources=tuple(name for kind, name in layout.offsets if kind == "source"),
        spread={"known die": 0.35, "new die": 0.5},
    )


class _Problem:
    """Residuals: ln(predicted / measured) of every row, and the pull of every unknown to 0."""

    def __init__(
        self,
        layout: _Layout,
        candidates: Candidates,
        priced: PricedRows,
        rows: NDArray[np.intp],
        weights: Array,
    ) -> None:
        self.layout = layout
        self.candidates = candidates
        self.log_measured = np.log(priced.measured_s[rows])
        self.weights = weights
        dies = {name: i for i, name in enumerate(layout.dies)}
        vendors = {name: i for i, name in enumerate(layout.vendors)}
        self.die = np.array([dies[name] for name in candidates.die])
        self.vendor = np.array([vendors[name] for name in candidates.vendor])
        kinds = {name: i for i, name in enumerate(EFFICIENCY_FIELDS)}
        self.narrow = np.array([kinds[name] for name in candidates.narrow])
        self.up = np.array([layout.ups.index(name) for name in candidates.up_fabric])
        self.out = np.array([layout.outs.index(name) for name in candidates.out_fabric])
        places = {pair: i for i, pair in enumerate(layout.offsets)}
        self.source = np.array([places["source", priced.rows[i].label("source_id")] for i in rows])
        self.framework = np.array(
            [places["framework", framework_family(priced.rows[i].label("framework"))] for i in rows]
        )
        self.width = self._prior_widths()

    def _prior_widths(self) -> Array:
        kinds = np.array([_PRIOR_WIDTH[name] for name in EFFICIENCY_FIELDS])
        shapes = self.layout.shapes
        fabric = np.array(_FABRIC_WIDTH)
        widths = {
            "shared": np.full(shapes["shared"], _SHARED_WIDTH),
            "all": kinds,
            "vendors": np.broadcast_to(kinds, shapes["vendors"]),
            "dies": np.broadcast_to(_DIE_FRACTION * kinds, shapes["dies"]),
            "fabric": np.broadcast_to(fabric, shapes["fabric"]),
            "ups": np.broadcast_to(fabric, shapes["ups"]),
            "outs": np.broadcast_to(fabric, shapes["outs"]),
            "offsets": np.array([_OFFSET_WIDTH[kind] for kind, _ in self.layout.offsets]),
        }
        return np.concatenate([np.ravel(widths[name]) for name in shapes])

    def efficiency(self, parts: dict[str, Array]) -> EfficiencyColumns:
        values = _values(parts["all"] + parts["vendors"][self.vendor] + parts["dies"][self.die])
        up = _fabric_values("scale-up", parts["fabric"][0] + parts["ups"][self.up])
        out = _fabric_values("scale-out", parts["fabric"][1] + parts["outs"][self.out])
        return EfficiencyColumns(
            narrow=np.take_along_axis(values, self.narrow[:, None], axis=1)[:, 0],
            wide=values[:, 0],
            attention=values[:, 3],
            memory=values[:, 4],
            call_s=values[:, 5],
            up=up[:, 0],
            up_latency_s=up[:, 1],
            out=out[:, 0],
            out_latency_s=out[:, 1],
            pace=np.ones(len(values)),
        )

    def errors(self, unknowns: Array) -> Array:
        """ln(predicted / measured), offsets of source and framework included."""
        parts = self.layout.split(unknowns)
        step_s = candidate_step_s(self.candidates, self.efficiency(parts), _shared(parts["shared"]))
        offsets = parts["offsets"]
        habits = offsets[self.source] + offsets[self.framework]
        return np.asarray(np.log(step_s) - self.log_measured + habits)

    def cost(self, unknowns: Array, errors: Array) -> float:
        """Pseudo-Huber: quadratic within a few noise widths, linear beyond."""
        scaled = errors / (_NOISE * _ROBUST)
        robust = _ROBUST**2 * (np.sqrt(1.0 + scaled**2) - 1.0)
        return float(self.weights @ robust + 0.5 * np.sum((unknowns / self.width) ** 2))

    def solve(self, unknowns: Array) -> Array:
        """Levenberg and Marquardt on reweighted rows."""
        damping, errors = 1e-2, self.errors(unknowns)
        cost = self.cost(unknowns, errors)
        for _ in range(_MAX_STEPS):
            jacobian = self.jacobian(unknowns, errors)
            robust = 1.0 / np.sqrt(1.0 + (errors / (_NOISE * _ROBUST)) ** 2)
            weights = self.weights * robust / _NOISE**2
            curvature = (jacobian * weights[:, None]).T @ jacobian + np.diag(self.width**-2)
            slope = jacobian.T @ (weights * errors) + unknowns / self.width**2
            while damping < 1e6:
                damped = curvature + damping * np.diag(np.diag(curvature))
                trial = unknowns - np.linalg.solve(damped, slope)
                trial_errors = self.errors(trial)
                trial_cost = self.cost(trial, trial_errors)
                if trial_cost < cost:
                    break
                damping *= 4.0
            else:
                return unknowns
            gained, cost = cost - trial_cost, trial_cost
            unknowns, errors, damping = trial, trial_errors, damping / 4.0
            if gained < _CONVERGED * cost:
                break
        return unknowns

    def jacobian(self, unknowns: Array, errors: Array) -> Array:
        """Derivatives of the errors, [rows, unknowns]. A row is of one die, one vendor and two
        fabrics, so that moving all dies at once tells every die's column."""
        places = self.layout.split(np.arange(self.layout.size).astype(float))
        result = np.zeros((len(errors), self.layout.size))
        rows = np.arange(len(errors))

        def moved(index: Array) -> Array:
            trial = unknowns.copy()
            trial[np.ravel(index).astype(int)] += _STEP
            return np.asarray((self.errors(trial) - errors) / _STEP)

        for kind in range(len(EFFICIENCY_FIELDS)):
            slope = moved(places["all"][kind])
            result[:, int(places["all"][kind])] = slope
            result[rows, places["vendors"][self.vendor, kind].astype(int)] = slope
            result[rows, places["dies"][self.die, kind].astype(int)] = slope
        for scope, key, owner in ((0, "ups", self.up), (1, "outs", self.out)):
            for kind in range(2):
                slope = moved(places["fabric"][scope, kind])
                result[:, int(places["fabric"][scope, kind])] = slope
                result[rows, places[key][owner, kind].astype(int)] = slope
        for place in places["shared"].astype(int):
            result[:, place] = moved(np.array([place]))
        result[rows, places["offsets"][self.source].astype(int)] = 1.0
        result[rows, places["offsets"][self.framework].astype(int)] = 1.0
        return result
