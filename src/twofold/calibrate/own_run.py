"""A finished run of one's own as a measured step: the same correction as from rows of a file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

from twofold.calibrate.fitted import efficiencies_toml
from twofold.calibrate.refine import DieRefinement, Refinement, refine
from twofold.document import PlanDocument, write_text
from twofold.errors import InputError
from twofold.perf.fleet import estimate_plans, make_problem
from twofold.perf.speeds import fitted_efficiencies


def refine_from_run(
    document: PlanDocument, step_times_s: Sequence[float], date: str, output: Path
) -> Refinement:
    """Correct the pace of the die that a plan ran on by the median of its steps.

    `date` ("2026-11") is when it ran, for a document that does not say. InputError for a machine
    whose curves were measured: its predictions do not rest on the fit.
    """
    pool = document.fleet.pool(document.plan.pool)
    accelerator = pool.node.accelerator
    if accelerator.curves is not None:
        raise InputError(
            f"the run was on '{accelerator.name}', which was calibrated: it is predicted by its "
            "own curves and not by the fit",
            at="--from",
            help="measure it anew with `twofold calibrate`; --from takes runs of plans that were "
            "made with --fleet",
        )
    if not step_times_s:
        raise InputError(
            "the run has not one step that was timed", at="--from", help="name one that has"
        )
    fit = fitted_efficiencies()
    problem = make_problem(document.model, document.workload, pool, fit, document.date or date)
    predicted_s = estimate_plans(problem, [document.plan])[0].outcome.step_time_s
    before = fit.spread_of(accelerator)
    pace, after = refine([math.log(median(step_times_s) / predicted_s)], before)
    name = accelerator.die or accelerator.name
    own = replace(fit.die(accelerator), pace=pace, half_width=after)
    write_text(output, efficiencies_toml(replace(fit, dies={**fit.dies, name: own})))
    told = DieRefinement(
        die=name, num_runs=1, pace=pace, half_width_before=before, half_width_after=after
    )
    return Refinement(dies=(told,), output=str(output))
