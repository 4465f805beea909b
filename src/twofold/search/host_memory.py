"""Whether the machines' own memory holds what a plan keeps there."""

from __future__ import annotations

from twofold.perf.fleet import Problem
from twofold.perf.footprint import state_columns
from twofold.perf.host import host_of
from twofold.perf.parameters import model_columns
from twofold.perf.plans import plan_columns, table_of
from twofold.plan import Plan


def fits_host(problem: Problem, plan: Plan) -> bool:
    """True where nothing is offloaded, and where the machine's memory is not known."""
    if plan.offload == "none":
        return True
    batch, layers = problem.workload.recipe.global_batch, problem.model.layers
    columns = plan_columns(table_of([plan]), batch, layers)
    model = model_columns(problem.rows, 1)
    return bool(state_columns(columns, model, host_of(problem.pool.node)).fits_host[0])
