"""Predictions against published runs: how far off, in what, and how often inside the interval.

Errors are |ln(predicted / measured)| of step time. A run reported by many hands, or many times,
is one group: errors are medians within a group, then over groups. Ranking and regret are over
runs that differ in their plan alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from twofold.calibrate.fit import predict
from twofold.calibrate.pricing import FindNode, PricedRows, candidate_bytes, price_rows
from twofold.calibrate.published import PublishedRow, UnanswerableError, read_rows
from twofold.errors import InputError
from twofold.perf.speeds import Efficiencies, fitted_efficiencies

Array = NDArray[np.float64]

_NOT_ENOUGH = (
    "model shape unknown",
    "device unknown",
    "number of devices unknown",
    "sequence length unknown",
    "global batch unknown",
)
"""Reasons that lie in the row: such rows do not count as unanswered."""

_PLAN = ("tp", "pp", "vp", "cp", "ep", "dp", "micro_batch", "grad_accum")
_PLAN_LABELS = ("sp", "data_sharding", "recompute", "schedule")
_GIB = 2.0**30
_LEAST_TO_RANK = 3


def validate(path: Path, find_node: FindNode, fit: Efficiencies | None = None) -> dict[str, Any]:
    """Score the rows of a CSV file. InputError where none of them can be answered."""
    fit = fit or fitted_efficiencies()
    try:
        priced = price_rows(read_rows(path), find_node)
    except UnanswerableError as error:
        raise InputError(
            str(error), at=str(path), help="a row needs model shape, device, count, batch, seq_len"
        ) from error
    predicted, chosen = predict(priced, fit)
    peak = candidate_bytes(priced.candidates)[chosen]
    return score(priced, predicted, half_widths(priced, fit), peak, fit.sources)


def half_widths(priced: PricedRows, fit: Efficiencies) -> Array:
    """Of ln time, 90 %, of every row."""
    return np.array([fit.spread_of(setting.node.accelerator) for setting in priced.settings])


def score(
    priced: PricedRows,
    predicted_s: Array,
    half_width: Array,
    peak_bytes: Array,
    fit_sources: tuple[str, ...] = (),
) -> dict[str, Any]:
    """The report of `twofold validate --json`. `fit_sources` are the tables that were fitted."""
    answerable = priced.num_read - sum(
        count for reason, count in priced.refused.items() if reason in _NOT_ENOUGH
    )
    measured = np.isfinite(priced.measured_s)
    error = np.log(predicted_s / priced.measured_s)
    report: dict[str, Any] = {
        "rows": priced.num_read,
        "answered": len(priced.rows),
        "unmeasured": priced.unmeasured,
        "answered_fraction": len(priced.rows) / max(answerable, 1),
        "from_fitted_sources_fraction": _seen_fraction(priced, fit_sources),
        "refused": dict(priced.refused),
        "assumed": dict(priced.assumed.counts),
        **_block(priced, error, half_width, peak_bytes, measured),
    }
    sources = defaultdict(list)
    for name, value in zip(_labels(priced.rows, _source), np.abs(error), strict=True):
        if np.isfinite(value):
            sources[name].append(value)
    medians = [float(np.median(values)) for values in sources.values()]
    report["mean_of_source_medians"] = float(np.mean(medians)) if medians else None
    for title, label in _CUTS.items():
        names = np.array(_labels(priced.rows, label))
        report[title] = {
            str(name): _block(priced, error, half_width, peak_bytes, measured & (names == name))
            for name in np.unique(names)
            if (measured & (names == name)).any()
        }
    return report


def _seen_fraction(priced: PricedRows, fit_sources: tuple[str, ...]) -> float:
    return sum(_source(row) in fit_sources for row in priced.rows) / len(priced.rows)


def _source(row: PublishedRow) -> str:
    return row.label("source_id") or "unknown"


_CUTS: dict[str, Callable[[PublishedRow], str]] = {
    "by_accelerator": lambda row: row.label("accelerator") or "unknown",
    "by_source": _source,
    "by_arch": lambda row: row.label("arch") or "unknown",
    "by_precision": lambda row: row.label("precision") or "unstated",
}


def _labels(rows: Iterable[PublishedRow], label: Callable[[PublishedRow], str]) -> list[str]:
    return [label(row) for row in rows]


def _block(
    priced: PricedRows,
    error: Array,
    half_width: Array,
    peak_bytes: Array,
    use: NDArray[np.bool_],
) -> dict[str, Any]:
    where = np.flatnonzero(use)
    if not len(where):
        return {"groups": 0}
    groups: dict[str, list[int]] = defaultdict(list)
    for i in where:
        groups[run_group(priced.rows[i])].append(int(i))
    signed = np.array([np.median(error[members]) for members in groups.values()])
    absolute = np.array([np.median(np.abs(error[members])) for members in groups.values()])
    inside = np.array([np.mean(np.abs(error[m]) <= half_width[m]) for m in groups.values()])
    return {
        "groups": len(groups),
        "median_abs_log_error": float(np.median(absolute)),
        "p90_abs_log_error": float(np.quantile(absolute, 0.9)),
        "mape": float(np.mean(np.abs(np.expm1(signed)))),
        "bias": float(np.median(signed)),
        "coverage_90": float(np.mean(inside)),
        "interval_width": float(np.exp(2.0 * np.median(half_width[where]))),
        **_ranking(priced, error, where),
        "memory_median_abs_error": _memory_error(priced, peak_bytes, where),
    }


def run_group(row: PublishedRow) -> str:
    """Runs that should take equally long: one workload, plan, precision, framework and date."""
    plan = [str(row.number(name)) for name in _PLAN] + [row.label(name) for name in _PLAN_LABELS]
    what = [row.label(name) for name in ("repeat_group", "precision", "framework", "date")]
    return "|".join([*what, *plan]) if row.label("repeat_group") else f"line {row.line}"


def _ranking(priced: PricedRows, error: Array, where: NDArray[np.intp]) -> dict[str, Any]:
    """Spearman's rank correlation and the regret of the predicted best, over groups of runs that
    differ only in their plan (at least three plans)."""
    sets: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for i in where:
        row = priced.rows[i]
        if not row.label("repeat_group"):
            continue
        what = [row.label(n) for n in ("repeat_group", "precision", "framework", "date")]
        sets["|".join(what)][run_group(row)].append(int(i))
    correlations, regrets = [], []
    for plans in sets.values():
        if len(plans) < _LEAST_TO_RANK:
            continue
        measured = np.array([np.median(priced.measured_s[m]) for m in plans.values()])
        predicted = measured * np.exp([np.median(error[m]) for m in plans.values()])
        if np.ptp(measured) > 0 and np.ptp(predicted) > 0:
            correlations.append(float(spearmanr(measured, predicted).statistic))
        regrets.append(float(measured[np.argmin(predicted)] / measured.min() - 1.0))
    return {
        "ranked_groups": len(regrets),
        "rank_correlation": float(np.mean(correlations)) if correlations else None,
        "pick_regret_mean": float(np.mean(regrets)) if regrets else None,
        "pick_regret_max": float(np.max(regrets)) if regrets else None,
    }


def _memory_error(priced: PricedRows, peak_bytes: Array, where: NDArray[np.intp]) -> float | None:
    errors = [
        abs(peak_bytes[i] / (_GIB * measured) - 1.0)
        for i in where
        if (measured := priced.rows[i].number("peak_mem_gib"))
    ]
    return float(np.median(errors)) if errors else None
