"""Serving priced: the steps of one replica, its memory, and the way of keys and values from the
machines that compute prompts to those that decode."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from twofold.document import part_hash
from twofold.errors import InputError
from twofold.fleet import Fleet, Node, StepCurve
from twofold.model import Model
from twofold.model.cache import cache_elements
from twofold.perf.joints import joint_of
from twofold.perf.serving_memory import ServingMemory, plan_layout, serving_memory
from twofold.perf.serving_rates import ServingEfficiencies, fitted_serving, serving_rates
from twofold.perf.serving_terms import (
    PART_USE,
    PARTS,
    Column,
    Steps,
    StepTerms,
    curve_terms,
    price_steps,
    step_terms,
)
from twofold.perf.serving_work import kv_bytes, serving_volumes
from twofold.perf.speeds import fitted_efficiencies
from twofold.serving_plan import ServingPlan

__all__ = [
    "PARTS",
    "PART_USE",
    "Column",
    "Replica",
    "ServingMemory",
    "Steps",
    "kv_transfer_s",
    "phase_plan",
    "replica",
    "serving_memory",
    "step_parts_s",
]

Array = NDArray[np.float64]
Phase = Literal["decode", "prefill"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Replica:
    """All that prices the steps of one replica. `spread` is the 90 % half-width of ln time;
    `basis` says what it rests on. `answer_s` is spent on a request outside of steps."""

    terms: StepTerms
    spread: float
    basis: str
    answer_s: float = 0.0


def replica(
    model: Model,
    fleet: Fleet,
    plan: ServingPlan,
    fit: ServingEfficiencies | None = None,
    *,
    phase: Phase = "decode",
) -> Replica:
    """Of the plan's own machines, or (`phase` "prefill") of those that compute prompts for them.

    By the measured curve of the embedded engine where the device was calibrated with this model,
    precision and threads, else by the catalog with fitted efficiencies.
    """
    plan = phase_plan(plan, phase)
    node = fleet.pool(plan.pool).node
    curve = step_curve(model, node, plan)
    if curve is not None:
        _refuse_divided(plan)
        return Replica(
            terms=curve_terms(curve),
            spread=1.645 * curve.spread,
            answer_s=curve.answer_s,
            basis="steps measured on this machine",
        )
    fit = fit or fitted_serving()
    terms = step_terms(
        serving_volumes(model, plan_layout(plan)), serving_rates(node, plan.precision, fit)
    )
    known = node.accelerator.die in fit.dies
    return Replica(
        terms=terms,
        spread=fit.spread_of(node.accelerator),
        basis="efficiencies fitted on published runs"
        + ("" if known else ", none of them on this device"),
    )


def step_parts_s(replica: Replica, steps: Steps) -> dict[str, Column]:
    """Seconds of each step by `PARTS`, which add up to it: [steps], or one number where all steps
    take the same."""
    return price_steps(replica.terms, steps)


def phase_plan(plan: ServingPlan, phase: Phase) -> ServingPlan:
    """The plan as one phase's machines see it."""
    if phase == "decode":
        return plan
    if plan.prefill is None:
        raise InputError(
            "the plan computes prompts where it decodes", at="plan, prefill", help="state prefill"
        )
    other = plan.prefill
    return replace(
        plan,
        prefill=None,
        pool=other.pool,
        replicas=other.replicas,
        tensor_degree=other.tensor_degree,
        pipeline_degree=other.pipeline_degree,
        expert_degree=other.expert_degree,
        precision=other.precision,
        attention_data_degree=1,
    )


def step_curve(model: Model, node: Node, plan: ServingPlan) -> StepCurve | None:
    """The measured curve of that model, precision and threads on that device, or None."""
    curves = node.accelerator.curves
    if curves is None or not curves.steps:
        return None
    wanted = (part_hash(model), plan.precision, plan.weight_precision, plan.threads)
    for curve in curves.steps:
        if (curve.model_hash, curve.precision, curve.weight_precision, curve.threads) == wanted:
            return curve
    return None


def _refuse_divided(plan: ServingPlan) -> None:
    if plan.replica_devices > 1:
        raise InputError(
            f"the embedded engine serves on one device, not on {plan.replica_devices}",
            at="plan, tensor_degree",
            help="use replicas",
        )


def kv_transfer_s(model: Model, fleet: Fleet, plan: ServingPlan, tokens: float) -> float:
    """T = l + tokens x cache bytes / B from a prefill to a decode replica.

    B is what the devices of the smaller of the two replicas send side by side over what joins
    their pools (`joints`), never more than their ports are sold for (the training fit of a fabric
    may pass 1: collectives add in switches). A machine without a network passes them inside.
    """
    assert plan.prefill is not None, "nothing is sent"
    size_bytes = tokens * kv_bytes(plan_layout(plan)) * cache_elements(model) * model.layers
    senders = min(plan.prefill.tensor_degree * plan.prefill.pipeline_degree, plan.replica_devices)
    here, there = fleet.pool(plan.prefill.pool), fleet.pool(plan.pool)
    inside = here.node.link("scale-up")
    if here.name == there.name and here.node.link("scale-out") is None and inside is not None:
        rate = senders * inside.bandwidth_bytes_per_s.value
        return inside.latency_s.value + size_bytes / rate
    joint = joint_of(fleet, here, there, fitted_efficiencies())
    ports = [pool.node.link("scale-out") for pool in (here, there)]
    sold = [senders * port.bandwidth_bytes_per_s.value for port in ports if port is not None]
    return joint.latency_s + size_bytes / min([joint.rate_of(senders), *sold])
