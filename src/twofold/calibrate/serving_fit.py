"""Serving efficiencies from published runs: one robust fit on ln of TPOT, TTFT and tokens/s.

Like `fit` for training: few numbers a die, a fabric and an engine, all logs, pulled towards their
vendor's and that towards the mean of all. Rows are weighted by curve (one configuration under
several loads counts once), curves by table. The share of users whose prompts come together
(`waves`) is a benchmark's habit, apart from the physics.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from twofold.calibrate.fit import below_one
from twofold.calibrate.serving_pricing import (
    Leaves,
    PricedServing,
    curve_name,
    predict_serving,
    solve_leaves,
    table_of,
    take_serving,
    wave_name,
)
from twofold.fleet import LinkScope
from twofold.perf.serving_rates import (
    Habit,
    ServingDie,
    ServingEfficiencies,
    ServingEngine,
    ServingFabric,
    ServingShared,
)

Array = NDArray[np.float64]

_DIE = {
    "gemm": (0.75, 0.2), "fp8": (0.65, 0.2), "fp4": (0.5, 0.3), "attention": (0.4, 0.4),
    "memory": (0.75, 0.15), "call_s": (2e-6, 0.5),
}  # fmt: skip
_FABRIC = {"scale-up": (0.6, 2e-6), "scale-out": (0.5, 8e-6)}
_SCOPES: tuple[tuple[LinkScope, str], ...] = (("scale-up", "up"), ("scale-out", "out"))
_FABRIC_WIDTH = (0.4, 0.6)
_ENGINE = {
    "step_s": (2e-3, 0.6), "sequence_s": (1e-5, 0.8), "token_s": (1e-7, 0.8),
    "request_s": (2e-2, 0.8),
}  # fmt: skip
_SHARED: dict[str, tuple[float, float, float]] = {
    "overlap": (0.8, 0.0, 1.0),
    "expert_imbalance": (1.2, 1.0, 3.0),
    "stream": (0.4, 0.05, 1.0),
}
"""First guess, and width of its logarithm or bounds."""
_HABIT = {"waves": (0.1, 1.0), "wait_steps": (2.0, 1.0)}
_CALL_FACTOR_WIDTH = 0.4
_DIE_FRACTION = 0.7
"""A die strays less from its vendor than a vendor from all."""
_NOISE = {"tpot": 0.08, "ttft": 0.25, "tokens": 0.1}
"""Scatter of ln between equal runs of different dates in the published curves."""
_SCENARIO_WEIGHT = {"poisson": 0.2}
"""Near saturation the open loop magnifies every error of capacity."""
_GRADE_WEIGHT = {"B": 0.5, "C": 0.1}
_STEP = 1e-3
_FARTHEST = 1.5
"""Change of an unknown in one step of the solver, in widths of its prior."""
_MOST_ERROR = 4.0


@dataclass(frozen=True, slots=True)
class _Unknown:
    """`owner` shares the leaf `leaf` among its rows, `width` is that of its prior."""

    leaf: str
    owner: str
    width: float


@dataclass(frozen=True, slots=True)
class _Problem:
    """The unknowns, and by leaf which of them each row adds up: [rows, unknowns]."""

    unknowns: tuple[_Unknown, ...]
    members: dict[str, NDArray[np.float64]]
    guess: dict[str, Array]

    def leaves(self, x: Array) -> Leaves:
        return Leaves(
            **{
                name: _value(name, self.guess[name] * np.exp(self.members[name] @ x))
                for name in self.members
            }
        )

    def chain(self, name: str, x: Array) -> Array:
        """d ln leaf / d unknown, of each row."""
        raw = self.guess[name] * np.exp(self.members[name] @ x)
        around = np.log(_value(name, raw * np.exp(_STEP)) / _value(name, raw)) / _STEP
        return np.asarray(around)


@dataclass(frozen=True, slots=True)
class Solution:
    """A fit, and the unknowns behind it by leaf and owner, from which another one can start."""

    efficiencies: ServingEfficiencies
    unknowns: dict[tuple[str, str], float]


def fit_serving(
    priced: PricedServing,
    use: NDArray[np.bool_] | None = None,
    start: Solution | None = None,
    rounds: int = 2,
    steps: int = 8,
) -> Solution:
    """Fit the rows in `use`, all by default. The layout of rows that state none is chosen by the
    fit itself, again in every round."""
    everything = np.ones(len(priced.settings), dtype=bool)
    rows = np.flatnonzero(everything if use is None else use)
    problem = _problem(priced, rows)
    known = start.unknowns if start else {}
    x = np.array([known.get((u.leaf, u.owner), 0.0) for u in problem.unknowns])
    fit = start.efficiencies if start else _efficiencies(priced, rows, problem, x)
    weights = row_weights(priced, rows)
    for _ in range(rounds):
        _, chosen = predict_serving(priced, fit)
        part = take_serving(priced, rows, chosen[rows])
        x = _solve(part, problem, weights, x, steps)
        fit = _efficiencies(priced, rows, problem, x)
    values = {(u.leaf, u.owner): float(v) for u, v in zip(problem.unknowns, x, strict=True)}
    return Solution(fit, values)


def row_weights(priced: PricedServing, rows: NDArray[np.intp]) -> Array:
    """1 / rows of the curve, then each table as the square root of its curves; less where grades
    are low. Normalised to the number of curves."""
    curves = Counter[str](curve_name(priced.settings[i]) for i in rows)
    weight = np.array([1.0 / curves[curve_name(priced.settings[i])] for i in rows])
    tables = [table_of(priced.rows[i]) for i in rows]
    total: dict[str, float] = defaultdict(float)
    for table, value in zip(tables, weight, strict=True):
        total[table] += value
    weight = weight / np.sqrt([total[table] for table in tables])
    weight *= [_GRADE_WEIGHT.get(priced.rows[i].label("quality"), 1.0) for i in rows]
    weight *= [_SCENARIO_WEIGHT.get(priced.settings[i].scenario, 1.0) for i in rows]
    return np.asarray(weight * len(curves) / weight.sum())


def _solve(part: PricedServing, problem: _Problem, weights: Array, x: Array, steps: int) -> Array:
    """Gauss-Newton with robust weights 1 / sqrt(1 + e^2), each step no farther than the priors'
    widths allow, shortened until it helps."""
    widths = np.array([unknown.width for unknown in problem.unknowns])
    measured = {name: np.log(part.measured[name]) for name in _NOISE}
    cost, errors = _cost(part, problem, weights, widths, measured, x)
    for _ in range(steps):
        normal = np.diag(widths**-2.0)
        gradient = x / widths**2
        slopes = _slopes(part, problem, x)
        for name, noise in _NOISE.items():
            error = errors[name]
            seen = np.isfinite(error)
            scale = weights[seen] / np.sqrt(1.0 + error[seen] ** 2) / noise
            slope = slopes[name][seen]
            normal += slope.T @ (slope * (scale / noise)[:, None])
            gradient += slope.T @ (scale * error[seen])
        step = -np.linalg.solve(normal, gradient)
        step *= min(1.0, _FARTHEST / max(float(np.max(np.abs(step / widths))), 1e-9))
        for _ in range(5):
            trial = _cost(part, problem, weights, widths, measured, x + step)
            if trial[0] < cost:
                break
            step = step / 3.0
        else:
            break
        done = cost - trial[0] < 1e-4 * cost
        x = x + step
        cost, errors = trial
        if done:
            break
    return x


def _cost(
    part: PricedServing,
    problem: _Problem,
    weights: Array,
    widths: Array,
    measured: dict[str, Array],
    x: Array,
) -> tuple[float, dict[str, Array]]:
    """Weighted sum of sqrt(1 + e^2) - 1, and the errors in units of the noise."""
    predicted = solve_leaves(part, problem.leaves(x))
    total = 0.5 * float(np.sum((x / widths) ** 2))
    errors = {}
    for name, noise in _NOISE.items():
        error = np.log(predicted[name]) - measured[name]
        error = np.where(
            np.isnan(measured[name]), np.nan, np.clip(error, -_MOST_ERROR, _MOST_ERROR)
        )
        errors[name] = error / noise
        total += float(np.nansum(weights * (np.sqrt(1.0 + errors[name] ** 2) - 1.0)))
    return total, errors


def _slopes(part: PricedServing, problem: _Problem, x: Array) -> dict[str, Array]:
    """d ln prediction / d unknown, [rows, unknowns]: one evaluation a leaf, since a leaf of a row
    moves that row alone."""
    leaves = problem.leaves(x)
    base = {name: np.log(values) for name, values in solve_leaves(part, leaves).items()}
    size = (len(part.settings), len(problem.unknowns))
    slopes = {name: np.zeros(size) for name in _NOISE}
    for leaf, members in problem.members.items():
        moved = replace(leaves, **{leaf: getattr(leaves, leaf) * np.exp(_STEP)})
        chain = problem.chain(leaf, x)
        for name, values in solve_leaves(part, moved).items():
            with np.errstate(invalid="ignore"):
                own = np.nan_to_num((np.log(values) - base[name]) / _STEP, posinf=0.0, neginf=0.0)
            slopes[name] += (own * chain)[:, None] * members
    return slopes


def _problem(priced: PricedServing, rows: NDArray[np.intp]) -> _Problem:
    unknowns: dict[tuple[str, str], _Unknown] = {}
    order: dict[tuple[str, str], int] = {}
    entries: list[tuple[int, tuple[str, str]]] = []
    for place, i in enumerate(rows):
        for unknown in _unknowns_of(priced, int(i)):
            key = (unknown.leaf, unknown.owner)
            if key not in order:
                order[key] = len(order)
                unknowns[key] = unknown
            entries.append((place, key))
    members = {f.name: np.zeros((len(rows), len(order))) for f in fields(Leaves)}
    for place, key in entries:
        members[key[0]][place, order[key]] = 1.0
    return _Problem(
        unknowns=tuple(unknowns.values()),
        members=members,
        guess={name: np.full(len(rows), _guess(name)) for name in members},
    )


def _unknowns_of(priced: PricedServing, row: int) -> list[_Unknown]:
    """Those that one row's leaves add up."""
    setting = priced.settings[row]
    accelerator = setting.node.accelerator
    found = []
    for leaf, (_, width) in _DIE.items():
        found += [
            _Unknown(leaf, "all", width),
            _Unknown(leaf, f"vendor {accelerator.vendor.lower()}", width),
            _Unknown(leaf, f"die {accelerator.die}", _DIE_FRACTION * width),
        ]
    up, out = setting.node.link("scale-up"), setting.node.link("scale-out")
    links = {"up": up or out, "out": out}
    scopes = {"up": "scale-up" if up else "scale-out", "out": "scale-out"}
    for leaf, link in links.items():
        for name, width in zip((leaf, f"{leaf}_latency_s"), _FABRIC_WIDTH, strict=True):
            found.append(_Unknown(name, scopes[leaf], width))
            if link is not None and link.fabric:
                found.append(_Unknown(name, f"fabric {link.fabric}", width))
    for leaf, (_, width) in _ENGINE.items():
        found.append(_Unknown(leaf, "all", width))
        if setting.engine != "other":
            found.append(_Unknown(leaf, f"engine {setting.engine}", width))
    if setting.engine != "other":
        found.append(_Unknown("call_s", f"engine {setting.engine}", _CALL_FACTOR_WIDTH))
    for leaf, (_, width) in _HABIT.items():
        found += [_Unknown(leaf, "all", width), _Unknown(leaf, wave_name(setting), width)]
    return found + [_Unknown(leaf, "all", 1.0) for leaf in _SHARED]


def _guess(leaf: str) -> float:
    if leaf in _DIE:
        return _DIE[leaf][0]
    if leaf in _ENGINE:
        return _ENGINE[leaf][0]
    if leaf in _SHARED:
        guess, low, high = _SHARED[leaf]
        share = (guess - low) / (high - low)
        return share / (1.0 - share)
    return {
        "up": _FABRIC["scale-up"][0], "up_latency_s": _FABRIC["scale-up"][1],
        "out": _FABRIC["scale-out"][0], "out_latency_s": _FABRIC["scale-out"][1],
        "waves": _HABIT["waves"][0], "wait_steps": _HABIT["wait_steps"][0],
    }[leaf]  # fmt: skip


def _value(leaf: str, raw: Array) -> Array:
    """A leaf from its raw number: fractions stay below 1, what all share within its bounds."""
    if leaf in _SHARED:
        _, low, high = _SHARED[leaf]
        return np.asarray(low + (high - low) * raw / (1.0 + raw))
    if leaf == "call_s" or leaf in _ENGINE or leaf in _HABIT or leaf.endswith("latency_s"):
        return raw
    return below_one(raw)


def _efficiencies(
    priced: PricedServing, rows: NDArray[np.intp], problem: _Problem, x: Array
) -> ServingEfficiencies:
    """The unknowns as tables by name."""
    values = {(u.leaf, u.owner): float(v) for u, v in zip(problem.unknowns, x, strict=True)}
    settings = [priced.settings[i] for i in rows]
    curves = _curves(priced, rows)

    def of(leaf: str, *owners: str) -> float:
        total = sum(values.get((leaf, owner), 0.0) for owner in owners)
        return float(_value(leaf, np.array(_guess(leaf) * np.exp(total))))

    def die(*owners: str) -> ServingDie:
        return ServingDie(
            gemm=of("gemm", *owners),
            fp8=of("fp8", *owners),
            fp4=of("fp4", *owners),
            attention=of("attention", *owners),
            memory=of("memory", *owners),
            call_s=of("call_s", *owners),
            num_curves=curves["die", owners[-1].removeprefix("die ")],
        )

    def engine(*owners: str) -> ServingEngine:
        factor = sum(values.get(("call_s", owner), 0.0) for owner in owners if owner != "all")
        return ServingEngine(
            step_s=of("step_s", *owners),
            sequence_s=of("sequence_s", *owners),
            token_s=of("token_s", *owners),
            request_s=of("request_s", *owners),
            call_factor=float(np.exp(factor)),
            num_curves=curves["engine", owners[-1].removeprefix("engine ")],
        )

    def habit(*owners: str) -> Habit:
        return Habit(**{leaf: of(leaf, *owners) for leaf in _HABIT})

    dies = {
        str(s.node.accelerator.die): f"vendor {s.node.accelerator.vendor.lower()}" for s in settings
    }
    fabrics: dict[str, ServingFabric] = {}
    for scope, leaf in _SCOPES:
        fabrics[scope] = ServingFabric(
            bandwidth=of(leaf, scope), latency_s=of(f"{leaf}_latency_s", scope)
        )
        for setting in settings:
            link = setting.node.link(scope)
            if link is not None and link.fabric and link.fabric not in fabrics:
                name = f"fabric {link.fabric}"
                fabrics[link.fabric] = ServingFabric(
                    bandwidth=of(leaf, scope, name), latency_s=of(f"{leaf}_latency_s", scope, name)
                )
    engines = {"all": engine("all")}
    for name in sorted({s.engine for s in settings} - {"other"}):
        engines[name] = engine("all", f"engine {name}")
    return ServingEfficiencies(
        shared=ServingShared(**{leaf: of(leaf, "all") for leaf in _SHARED}),
        dies={name: die("all", vendor, f"die {name}") for name, vendor in dies.items()},
        vendors={"all": die("all")}
        | {v.removeprefix("vendor "): die("all", v) for v in set(dies.values())},
        fabrics=fabrics,
        engines=engines,
        habits={"all": habit("all")}
        | {name: habit("all", name) for name in sorted({wave_name(s) for s in settings})},
        sources=tuple(sorted({table_of(s.row) for s in settings})),
    )


def _curves(priced: PricedServing, rows: NDArray[np.intp]) -> Counter[tuple[str, str]]:
    """How many curves speak for each die and engine."""
    seen = {
        (kind, name, curve_name(priced.settings[i]))
        for i in rows
        for kind, name in (
            ("die", str(priced.settings[i].node.accelerator.die)),
            ("engine", priced.settings[i].engine),
        )
    }
    return Counter((kind, name) for kind, name, _ in seen)
