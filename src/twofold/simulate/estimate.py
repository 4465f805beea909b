"""A plan under a workload, simulated: the estimate, and the requests one by one."""

from __future__ import annotations

import math
from collections.abc import Sequence as Rows
from dataclasses import dataclass

from twofold.fleet import Fleet, Pool
from twofold.model import Model
from twofold.perf.serving import phase_plan, replica, serving_memory
from twofold.perf.serving_rates import ServingEfficiencies
from twofold.serving_outcome import ServingEstimate
from twofold.serving_plan import ServingPlan
from twofold.simulate.deployment import deploy
from twofold.simulate.outcome import Judged, judged, outcome_of, overload_fraction
from twofold.simulate.serving import Patience, Served, simulate, simulate_while
from twofold.workload.requests import Request, draw_requests
from twofold.workload.serve import Serve


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulated:
    """`overload_fraction` is how much more comes than is answered (0: the queue does not grow); the
    estimate's basis says so too."""

    estimate: ServingEstimate
    requests: Judged
    overload_fraction: float


def simulate_plan(
    model: Model,
    fleet: Fleet,
    plan: ServingPlan,
    workload: Serve,
    *,
    seed: int = 0,
    requests: Rows[Request] | None = None,
    fit: ServingEfficiencies | None = None,
) -> Simulated:
    """Of the requests given, else of those drawn from the seed. InputError where the model does
    not fit, or one of the requests never would."""
    if requests is None:
        requests = draw_requests(workload, seed)
    served = simulate(workload.arrivals, requests, deploy(model, fleet, plan, fit))
    return _simulated(model, fleet, plan, workload, served, fit)


def simulate_within(
    model: Model,
    fleet: Fleet,
    plan: ServingPlan,
    workload: Serve,
    requests: Rows[Request],
    fit: ServingEfficiencies | None = None,
) -> Simulated | None:
    """The same, given up (None) as soon as more requests have missed the targets than may."""
    judged_number, targets = len(requests) - workload.warmup_requests, workload.targets
    needed = math.ceil(targets.attainment * judged_number - 1e-9)
    patience = Patience(
        targets=targets, first=workload.warmup_requests, most_missed=judged_number - needed
    )
    deployment = deploy(model, fleet, plan, fit)
    served = simulate_while(workload.arrivals, requests, deployment, patience)
    return None if served is None else _simulated(model, fleet, plan, workload, served, fit)


def _simulated(
    model: Model,
    fleet: Fleet,
    plan: ServingPlan,
    workload: Serve,
    served: Served,
    fit: ServingEfficiencies | None,
) -> Simulated:
    memory = serving_memory(model, fleet, plan)
    priced = replica(model, fleet, plan, fit)
    overload = overload_fraction(workload, served)
    basis = f"simulated, with {priced.basis}"
    if overload:
        basis += f"; overloaded: {overload:.0%} more requests come than are answered"
    return Simulated(
        estimate=ServingEstimate(
            outcome=outcome_of(workload, served, pools_of(fleet, plan), memory.parts_bytes),
            spread=priced.spread,
            basis=basis,
        ),
        requests=judged(workload, served),
        overload_fraction=overload,
    )


def pools_of(fleet: Fleet, plan: ServingPlan) -> list[tuple[Pool, int]]:
    """The pools of the replicas that take requests, and of those that only decode, each with the
    devices in use."""
    decode = (fleet.pool(plan.pool), plan.replicas * plan.replica_devices)
    if plan.prefill is None:
        return [decode]
    first = phase_plan(plan, "prefill")
    return [(fleet.pool(first.pool), first.replicas * first.replica_devices), decode]
