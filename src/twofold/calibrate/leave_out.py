"""Predictions of rows that a fit has not seen: every source, model family or die left out in turn.

From these errors come the intervals: the half-width that holds nine groups in ten (split
conformal prediction, Vovk et al. 2005, on left-out groups rather than rows, since rows of one
table err alike).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from twofold.calibrate.fit import fit_efficiencies, predict
from twofold.calibrate.pricing import PricedRows
from twofold.calibrate.published import PublishedRow
from twofold.calibrate.validation import run_group
from twofold.perf.speeds import Efficiencies

Array = NDArray[np.float64]

_COVERAGE = 0.9
_LEAST_WIDTH = 0.1
_CONTESTS = "mlperf"


def by_source(row: PublishedRow) -> str:
    """All rounds of one contest are one source: the same code and people come back."""
    name = row.label("source_id")
    return _CONTESTS if name.startswith(_CONTESTS) else name


def by_family(row: PublishedRow) -> str:
    return row.label("model_family")


def left_out_errors(priced: PricedRows, fold: Callable[[int], str], whole: Efficiencies) -> Array:
    """ln(predicted / measured) of every row by the fit without its fold; NaN where unmeasured.

    `fold` names the fold of a row's index. Fits start from the whole fit's choice of plans.
    """
    names = np.array([fold(index) for index in range(len(priced.rows))])
    measured = np.isfinite(priced.measured_s)
    errors = np.full(len(names), np.nan)
    for name in np.unique(names[measured]):
        out = names == name
        fit = fit_efficiencies(priced, use=measured & ~out, start=whole, rounds=1)
        predicted_s, _ = predict(priced, fit)
        errors[out] = np.log(predicted_s[out] / priced.measured_s[out])
    return errors


def source_errors(priced: PricedRows, whole: Efficiencies) -> Array:
    return left_out_errors(priced, lambda i: by_source(priced.rows[i]), whole)


def family_errors(priced: PricedRows, whole: Efficiencies) -> Array:
    return left_out_errors(priced, lambda i: by_family(priced.rows[i]), whole)


def die_errors(priced: PricedRows, whole: Efficiencies) -> Array:
    """Products that share a die go out together."""
    return left_out_errors(
        priced, lambda i: priced.settings[i].node.accelerator.die or "unknown", whole
    )


def with_spread(priced: PricedRows, fit: Efficiencies) -> tuple[Efficiencies, dict[str, Array]]:
    """The fit with its intervals, and the left-out errors they rest on."""
    errors = {
        "source": source_errors(priced, fit),
        "family": family_errors(priced, fit),
        "die": die_errors(priced, fit),
    }
    spread = {
        "known die": half_width(priced, errors["source"]),
        "new die": half_width(priced, errors["die"]),
    }
    spread["new die"] = max(spread["new die"], spread["known die"])
    return replace(fit, spread=spread), errors


def half_width(priced: PricedRows, errors: Array) -> float:
    """The |error| that nine of ten groups stay within, sources weighing as the square root of
    their groups, so that one large table does not set it alone."""
    groups: dict[str, list[float]] = defaultdict(list)
    source: dict[str, str] = {}
    for row, error in zip(priced.rows, errors, strict=True):
        if np.isfinite(error):
            name = run_group(row)
            groups[name].append(abs(error))
            source[name] = by_source(row)
    names = list(groups)
    sizes = {s: sum(source[n] == s for n in names) for s in set(source.values())}
    weights = np.array([sizes[source[name]] ** -0.5 for name in names])
    values = np.array([float(np.median(groups[name])) for name in names])
    order = np.argsort(values)
    reached = np.cumsum(weights[order]) / weights.sum()
    return max(float(values[order][np.searchsorted(reached, _COVERAGE)]), _LEAST_WIDTH)
