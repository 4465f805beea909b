"""One to five measured steps of one's own cluster: the fit's pace corrected, its interval narrowed.

The correction is one number, the ratio of measured to predicted time that the runs share, drawn
towards 1 as far as few runs deserve: with a prior width s (the fit's own interval) and a scatter
t between runs of one site, n runs count n / (n + t^2/s^2), and what is left of the interval is
the root of t^2 and s^2 / (1 + n s^2/t^2) (normal prior and normal scatter).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from twofold.calibrate.fit import predict
from twofold.calibrate.fitted import efficiencies_toml
from twofold.calibrate.pricing import FindNode, price_rows
from twofold.calibrate.published import UnanswerableError, read_rows
from twofold.document import write_text
from twofold.errors import InputError
from twofold.perf.speeds import Efficiencies, fitted_efficiencies

_NORMAL_90 = 1.645
_SITE_SCATTER = 0.06
"""ln time between runs of one site that the fit explains all but for chance: the noise floor of
equal runs by different hands is 6 to 18 % (MLPerf)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refinement:
    """`pace` multiplies predicted times; half-widths are of ln time, 90 %."""

    num_runs: int
    pace: float
    half_width_before: float
    half_width_after: float
    output: str


def refine_from(path: Path, output: Path, find_node: FindNode) -> Refinement:
    """Read measured rows, write a refined efficiencies file for `plan --calibration`."""
    fit = fitted_efficiencies()
    try:
        priced = price_rows(read_rows(path), find_node)
    except UnanswerableError as error:
        raise InputError(
            str(error), at=str(path), help="a row needs model shape, device, count, batch, seq_len"
        ) from error
    predicted_s, _ = predict(priced, fit)
    errors = np.log(priced.measured_s / predicted_s)
    used = [float(error) for error in errors if math.isfinite(error)]
    if not used:
        raise InputError(
            "no row says how long a step took",
            at=str(path),
            help="fill step_time_s or tokens_per_s_per_accel",
        )
    before = max(fit.spread_of(setting.node.accelerator) for setting in priced.settings)
    refined, after = refine(fit, used, before)
    write_text(output, efficiencies_toml(refined))
    return Refinement(
        num_runs=len(used),
        pace=refined.shared.pace,
        half_width_before=before,
        half_width_after=after,
        output=str(output),
    )


def refine(
    fit: Efficiencies, log_ratios: Sequence[float], half_width: float
) -> tuple[Efficiencies, float]:
    """`log_ratios` are ln(measured / predicted) of the site's runs."""
    prior = half_width / _NORMAL_90
    count = len(log_ratios)
    scatter = _SITE_SCATTER
    if count > 2:
        scatter = max(scatter, float(np.std(log_ratios, ddof=1)))
    weight = count / (count + (scatter / prior) ** 2)
    shift = weight * float(np.mean(log_ratios))
    left = math.hypot(scatter, prior * math.sqrt(1.0 - weight))
    after = min(_NORMAL_90 * left, half_width)
    shared = replace(fit.shared, pace=fit.shared.pace * math.exp(shift))
    return replace(fit, shared=shared, spread=dict.fromkeys(fit.spread, after)), after
