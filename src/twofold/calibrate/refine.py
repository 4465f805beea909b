"""One to five measured steps of one's own cluster: the fit's pace corrected, its interval narrowed.

The correction is one number, the ratio of measured to predicted time that the runs share, drawn
towards 1 as far as few runs deserve: with a prior width s (the fit's own interval) and a scatter
t between runs of one site, n runs count n / (n + t^2/s^2), and what is left of the interval is
the root of t^2 and s^2 / (1 + n s^2/t^2) (normal prior and normal scatter).
"""

from __future__ import annotations

import math
from collections import defaultdict
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
from twofold.fleet import Accelerator
from twofold.perf.speeds import fitted_efficiencies

_NORMAL_90 = 1.645
_SITE_SCATTER = 0.06
"""ln time between runs of one site that the fit explains all but for chance: the noise floor of
equal runs by different hands is 6 to 18 % (MLPerf)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DieRefinement:
    """What the runs of one die say: `pace` multiplies predicted times; half-widths are of ln
    time, 90 %."""

    die: str
    num_runs: int
    pace: float
    half_width_before: float
    half_width_after: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Refinement:
    """One correction a die; dies that no row is of keep theirs."""

    dies: tuple[DieRefinement, ...]
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
    # A plan names no framework, so a framework's habit belongs to the site's pace.
    predicted_s, _ = predict(priced, replace(fit, frameworks={}))
    ratios: dict[str, list[float]] = defaultdict(list)
    accelerators: dict[str, Accelerator] = {}
    for setting, ratio in zip(
        priced.settings, np.log(priced.measured_s / predicted_s), strict=True
    ):
        accelerator = setting.node.accelerator
        name = accelerator.die or accelerator.name
        if math.isfinite(ratio):
            ratios[name].append(float(ratio))
            accelerators[name] = accelerator
    if not ratios:
        raise InputError(
            "no row says how long a step took",
            at=str(path),
            help="fill step_time_s or tokens_per_s_per_accel",
        )
    dies, told = dict(fit.dies), []
    for name, logs in sorted(ratios.items()):
        accelerator = accelerators[name]
        before = fit.spread_of(accelerator)
        pace, after = refine(logs, before)
        dies[name] = replace(fit.die(accelerator), pace=pace, half_width=after)
        told.append(
            DieRefinement(
                die=name,
                num_runs=len(logs),
                pace=pace,
                half_width_before=before,
                half_width_after=after,
            )
        )
    write_text(output, efficiencies_toml(replace(fit, dies=dies)))
    return Refinement(dies=tuple(told), output=str(output))


def refine(log_ratios: Sequence[float], half_width: float) -> tuple[float, float]:
    """Pace and what is left of the half-width; `log_ratios` are ln(measured / predicted)."""
    prior = half_width / _NORMAL_90
    count = len(log_ratios)
    scatter = _SITE_SCATTER
    if count > 2:
        scatter = max(scatter, float(np.std(log_ratios, ddof=1)))
    weight = count / (count + (scatter / prior) ** 2)
    left = math.hypot(scatter, prior * math.sqrt(1.0 - weight))
    pace = math.exp(weight * float(np.mean(log_ratios)))
    return pace, min(_NORMAL_90 * left, half_width)
