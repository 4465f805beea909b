"""Serving predictions against published runs: TTFT, TPOT and output tokens/s.

Errors are |predicted / measured - 1|. One curve is one configuration under several loads: errors
are medians within a curve, then over curves, never over rows, or one much-run model would be all.
Ranking and regret are inside a curve. Vendors, engines, modes and kinds of load stand apart.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from twofold.calibrate.inference_rows import ServingSetting, read_serving_rows
from twofold.calibrate.pricing import FindNode
from twofold.calibrate.published import UnanswerableError
from twofold.calibrate.serving_pricing import (
    PricedServing,
    curve_name,
    predict_serving,
    price_serving,
    table_of,
)
from twofold.errors import InputError
from twofold.perf.serving_rates import ServingEfficiencies, fitted_serving

Array = NDArray[np.float64]
Errors = dict[str, Array]

METRICS = ("tpot", "ttft", "tokens")
_LEAST_TO_RANK = 3
_FARTHEST = float(np.log(1000.0))
_NOT_ENOUGH = (
    "how many prefill and decode replicas is not said",
    "lengths unknown",
    "concurrency unknown",
    "layout not understood",
    "one phase of a deployment alone",
    "several kinds of devices in one row",
    "a tensor degree that does not divide the heads",
    "precision unknown",
)
"""Reasons that lie in the row: such rows do not count as unanswered."""


def validate_serving(
    path: Path, find_node: FindNode, fit: ServingEfficiencies | None = None
) -> dict[str, Any]:
    """Score the rows of a CSV file. InputError where none of them can be answered."""
    fit = fit or fitted_serving()
    try:
        priced = price_serving(read_serving_rows(path), find_node)
    except UnanswerableError as error:
        raise InputError(
            str(error),
            at=str(path),
            help="a row needs model, accel_key, layout, isl, osl and concurrency",
        ) from error
    predicted, _ = predict_serving(priced, fit)
    return score_serving(priced, errors_of(priced, predicted), fit)


def errors_of(priced: PricedServing, predicted: dict[str, Array]) -> Errors:
    """ln(predicted / measured) of each metric and row, NaN where not measured; a prediction of no
    end (more load than can be served) is off by a factor of a thousand."""
    return {
        name: np.clip(np.log(predicted[name] / priced.measured[name]), -_FARTHEST, _FARTHEST)
        for name in METRICS
    }


def score_serving(
    priced: PricedServing, errors: Errors, fit: ServingEfficiencies
) -> dict[str, Any]:
    """The report of `twofold validate --json` on serving rows."""
    answerable = priced.num_read - sum(priced.refused[reason] for reason in _NOT_ENOUGH)
    everything = np.ones(len(priced.settings), dtype=bool)
    report: dict[str, Any] = {
        "kind": "serving",
        "rows": priced.num_read,
        "answered": len(priced.rows),
        "answered_fraction": len(priced.rows) / max(answerable, 1),
        "from_fitted_sources_fraction": float(
            np.mean([table_of(row) in fit.sources for row in priced.rows])
        ),
        "refused": dict(priced.refused),
        "assumed": dict(priced.assumed.counts),
        **_block(priced, errors, fit, everything),
    }
    for title, label in CUTS.items():
        names = np.array([label(setting) for setting in priced.settings])
        report[title] = {
            str(name): _block(priced, errors, fit, names == name) for name in np.unique(names)
        }
    report["tails"] = _tails(priced)
    return report


def _mode(setting: ServingSetting) -> str:
    return "disaggregated" if setting.prefill is not None else "aggregated"


CUTS: dict[str, Callable[[ServingSetting], str]] = {
    "by_vendor": lambda s: s.row.label("vendor") or "unknown",
    "by_engine": lambda s: s.engine,
    "by_mode": _mode,
    "by_load": lambda s: s.scenario,
    "by_source": lambda s: table_of(s.row),
    "by_accelerator": lambda s: s.node.accelerator.name,
    "by_model": lambda s: s.model.name,
}


def _block(
    priced: PricedServing, errors: Errors, fit: ServingEfficiencies, use: NDArray[np.bool_]
) -> dict[str, Any]:
    return {
        name: _scores(priced, errors[name], name, fit, use)
        for name in METRICS
        if (use & ~np.isnan(errors[name])).any()
    }


def _scores(
    priced: PricedServing,
    error: Array,
    metric: str,
    fit: ServingEfficiencies,
    use: NDArray[np.bool_],
) -> dict[str, Any]:
    curves: dict[str, list[int]] = defaultdict(list)
    for i in np.flatnonzero(use & ~np.isnan(error)):
        curves[curve_name(priced.settings[i])].append(int(i))
    relative = np.abs(np.expm1(error))
    absolute = np.array([np.median(relative[m]) for m in curves.values()])
    signed = np.array([np.median(error[m]) for m in curves.values()])
    widths = np.array([fit.spread_of(s.node.accelerator, metric) for s in priced.settings])
    inside = [float(np.mean(np.abs(error[m]) <= widths[m])) for m in curves.values()]
    rows = relative[use & ~np.isnan(error)]
    return {
        "rows": len(rows),
        "curves": len(curves),
        "median": float(np.median(absolute)),
        "median_over_rows": float(np.median(rows)),
        "p90": float(np.quantile(absolute, 0.9)),
        "bias": float(np.expm1(np.median(signed))),
        "coverage_90": float(np.mean(inside)),
        **_ranking(priced, error, metric, curves),
    }


def _ranking(
    priced: PricedServing, error: Array, metric: str, curves: dict[str, list[int]]
) -> dict[str, Any]:
    """Spearman's rank correlation inside curves, and what picking the predicted best of a curve
    costs against its true best (in tokens/s where measured, else in the latency)."""
    correlations, regrets = [], []
    for members in curves.values():
        measured = priced.measured[metric][members]
        if len(np.unique(measured)) < _LEAST_TO_RANK:
            continue
        predicted = np.clip(measured * np.exp(error[members]), 0.0, 1e12)
        sign = -1.0 if metric == "tokens" else 1.0
        if np.ptp(predicted) > 0:
            correlations.append(float(spearmanr(measured, predicted).statistic))
        chosen = float(measured[np.argmin(sign * predicted)])
        best = float((sign * measured).min() * sign)
        regrets.append(max(chosen / best, best / chosen) - 1.0)
    return {
        "ranked_curves": len(regrets),
        "rank_correlation": float(np.mean(correlations)) if correlations else None,
        "pick_regret_mean": float(np.mean(regrets)) if regrets else None,
    }


def _tails(priced: PricedServing) -> dict[str, Any]:
    """How far published p99 lie from p50: what a closed form of the mean cannot say (the event
    simulation can). Medians of the ratios."""
    found: dict[str, Any] = {}
    for metric in ("ttft", "tpot"):
        ratios = [
            tail / middle
            for setting in priced.settings
            if (tail := setting.row.number(f"{metric}_p99_ms"))
            and (middle := setting.row.number(f"{metric}_ms"))
        ]
        if ratios:
            found[metric] = {
                "rows": len(ratios),
                "p99_over_p50": float(np.median(ratios)),
                "p90_of_it": float(np.quantile(ratios, 0.9)),
            }
    return found
