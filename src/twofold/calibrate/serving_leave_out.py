"""Serving rows predicted by fits that have not seen their table, or their die.

From these errors come the intervals, as for training (`leave_out`): the half-width that nine
curves in ten stay within, tables weighing as the square root of their curves.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from twofold.calibrate.inference_rows import ServingSetting
from twofold.calibrate.serving_fit import Solution, fit_serving
from twofold.calibrate.serving_pricing import (
    PricedServing,
    curve_name,
    predict_serving,
    table_of,
)
from twofold.calibrate.serving_validation import METRICS, Errors, errors_of
from twofold.perf.serving_rates import ServingEfficiencies

Array = NDArray[np.float64]

_COVERAGE = 0.9
_STEPS = 3
"""From the whole fit on: what one fold changes is little."""


def left_out(
    priced: PricedServing, fold: Callable[[ServingSetting], str], whole: Solution
) -> Errors:
    """Errors of every row by the fit without its fold."""
    names = np.array([fold(setting) for setting in priced.settings])
    errors = {name: np.full(len(names), np.nan) for name in METRICS}
    for name in np.unique(names):
        out = names == name
        fit = fit_serving(priced, use=~out, start=whole, rounds=1, steps=_STEPS)
        predicted, _ = predict_serving(priced, fit.efficiencies)
        for metric, values in errors_of(priced, predicted).items():
            errors[metric][out] = values[out]
    return errors


def with_spread(
    priced: PricedServing, fit: Solution
) -> tuple[ServingEfficiencies, dict[str, Errors]]:
    """The fit with its intervals, and the left-out errors they rest on."""
    errors = {
        "source": left_out(priced, lambda s: table_of(s.row), fit),
        "die": left_out(priced, lambda s: s.node.accelerator.die or "unknown", fit),
    }
    spread = {}
    for metric in METRICS:
        known = _half_width(priced, errors["source"][metric])
        spread[f"{metric}, known die"] = known
        spread[f"{metric}, new die"] = max(known, _half_width(priced, errors["die"][metric]))
    return replace(fit.efficiencies, spread=spread), errors


def _half_width(priced: PricedServing, error: Array) -> float:
    curves: dict[str, list[float]] = defaultdict(list)
    table: dict[str, str] = {}
    for setting, value in zip(priced.settings, error, strict=True):
        if np.isfinite(value):
            name = curve_name(setting)
            curves[name].append(abs(float(value)))
            table[name] = table_of(setting.row)
    names = list(curves)
    sizes = {t: sum(table[name] == t for name in names) for t in set(table.values())}
    weights = np.array([sizes[table[name]] ** -0.5 for name in names])
    values = np.array([float(np.median(curves[name])) for name in names])
    order = np.argsort(values)
    reached = np.cumsum(weights[order]) / weights.sum()
    return float(values[order][np.searchsorted(reached, _COVERAGE)])
