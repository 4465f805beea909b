"""Everything an `Estimate` promises for plans on one pool: time, memory, energy, cost, carbon,
goodput and interval, on columns. One plan is a table of one row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from twofold.fleet import Pool
from twofold.model import Model, Operator, operator_table, training_flop_per_token
from twofold.outcome import Estimate, Outcome
from twofold.perf.carbon import embodied_kgco2e, operational_kgco2e
from twofold.perf.cluster import (
    PARTS,
    LayerColumns,
    OrderColumns,
    StepColumns,
    compose_step,
    layer_columns,
    order_columns,
)
from twofold.perf.columns import ModelColumns, PlanColumns
from twofold.perf.cost import SECONDS_PER_HOUR, rent_usd
from twofold.perf.energy import EnergyParts, energy_parts_j, power_range_w
from twofold.perf.footprint import (
    MEMORY_PARTS,
    FootprintColumns,
    StateColumns,
    compose_footprint,
    state_columns,
)
from twofold.perf.goodput import best_goodput_fraction, checkpoint_stall_s
from twofold.perf.host import host_of
from twofold.perf.layout import LayoutColumns, layout_columns
from twofold.perf.parameters import model_columns
from twofold.perf.plans import (
    PRECISIONS,
    PlanTable,
    distinct_keys,
    layer_keys,
    plan_columns,
    table_of,
)
from twofold.perf.rates import Rates
from twofold.perf.speeds import Efficiencies, age_months, node_rates
from twofold.perf.work import Work, layer_work, take
from twofold.plan import Plan
from twofold.policy.checkpointing import failures_per_s
from twofold.workload import Train

Array = NDArray[np.float64]

RESTART_S = 600.0
"""Noticing a failure, replacing the node and loading the checkpoint: ten minutes (assumed;
MegaScale reports less, research clusters more)."""
STARTUP_S = 120.0
"""Start of a job until its first step: process groups, compilation, loading (assumed)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetColumns:
    """Estimates of many plans of one model on one pool, a column each: [plans].

    `energy_j`, `cost_usd` and `carbon_kgco2e` are of the whole run, None where a figure they
    need is not known. The true step time is believed between low and high (90 %).
    """

    step: StepColumns
    footprint: FootprintColumns
    fits: NDArray[np.bool_]
    step_time_low_s: Array
    step_time_high_s: Array
    goodput_fraction: Array
    time_s: Array
    energy_j: Array | None
    energy_parts: EnergyParts | None
    cost_usd: Array | None
    carbon_kgco2e: Array | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A model and workload on a pool: what is the same for every plan, prepared once."""

    model: Model
    workload: Train
    pool: Pool
    rows: tuple[Operator, ...]
    fit: Efficiencies
    date: str
    flop_per_step: float

    @property
    def age_months(self) -> float:
        return age_months(self.pool.node.accelerator.launched, self.date)


def make_problem(
    model: Model, workload: Train, pool: Pool, fit: Efficiencies, date: str
) -> Problem:
    """`date` ("2026-11") is when the run is: software matures, and prices are of a day."""
    return Problem(
        model=model,
        workload=workload,
        pool=pool,
        rows=tuple(operator_table(model)),
        fit=fit,
        date=date,
        flop_per_step=training_flop_per_token(model, workload.seq_len) * workload.tokens_per_step,
    )


def price_table(problem: Problem, table: PlanTable) -> FleetColumns:
    """Estimate every plan of a table. InputError where a figure that is needed is missing."""
    keys, index = distinct_keys(table)
    work = layer_work(
        problem.rows, layer_keys(keys, problem.workload.seq_len), problem.workload.seq_len
    )
    return price_plans(
        problem,
        take(work, index),
        plan_columns(table, problem.workload.recipe.global_batch, problem.model.layers),
        model_columns(problem.rows, len(table)),
        rates_of(problem, table),
    )


def rates_of(problem: Problem, table: PlanTable) -> Rates:
    """Reached speeds of each plan in its precision."""
    codes = np.unique(table.precision)
    each = [
        node_rates(problem.pool.node, PRECISIONS[code], problem.age_months, problem.fit)
        for code in codes
    ]
    place = np.searchsorted(codes, table.precision)
    names = list(Rates.__dataclass_fields__)
    return Rates(
        **{name: np.concatenate([getattr(r, name) for r in each])[place] for name in names}
    )


def price_plans(
    problem: Problem, work: Work, plan: PlanColumns, model: ModelColumns, rates: Rates
) -> FleetColumns:
    """The composer of everything: closed forms only, no loop over plans."""
    host = host_of(problem.pool.node)
    return compose_plans(
        problem,
        layer_columns(work, plan, rates),
        layout_columns(plan, model, rates, host),
        state_columns(plan, model, host),
        order_columns(plan, model),
        plan.recomputed,
        model,
        rates,
    )


def compose_plans(
    problem: Problem,
    layers: LayerColumns,
    layout: LayoutColumns,
    state: StateColumns,
    order: OrderColumns,
    recomputed: Array,
    model: ModelColumns,
    rates: Rates,
) -> FleetColumns:
    """Everything of each plan from its layer key, layout and order: a search over many plans
    prices those few first. One row of model and rates serves all plans of a pool."""
    pool, accelerator = problem.pool, problem.pool.node.accelerator
    step = compose_step(layers, layout, order, recomputed, rates)
    footprint = compose_footprint(
        layers.saved_bytes, layers.inputs_bytes, state, order, recomputed, model
    )
    spread = problem.fit.spread_of(accelerator)
    devices = order.devices
    nodes = np.ceil(devices / pool.node.num_accelerators)
    rented = nodes * pool.node.num_accelerators
    goodput = _goodput(problem, state, rates, step.step_time_s, devices, nodes)
    num_steps = problem.workload.num_steps
    time_s = (STARTUP_S + num_steps * step.step_time_s) / goodput
    parts = _energy_parts(problem, step, rented / devices)
    energy_j = None
    if parts is not None:
        energy_j = np.asarray(sum(parts)) * devices * time_s / step.step_time_s
    cost = None
    if pool.usd_per_node_hour is not None:
        cost = rent_usd(pool.usd_per_node_hour.value, nodes, time_s)
    return FleetColumns(
        step=step,
        footprint=footprint,
        fits=state.fits_host & (footprint.peak_bytes <= accelerator.memory.usable_bytes.value),
        step_time_low_s=step.step_time_s * np.exp(-spread),
        step_time_high_s=step.step_time_s * np.exp(spread),
        goodput_fraction=goodput,
        time_s=time_s,
        energy_j=energy_j,
        energy_parts=parts,
        cost_usd=cost,
        carbon_kgco2e=_carbon(pool, energy_j, nodes, time_s),
    )


def _goodput(
    problem: Problem,
    state: StateColumns,
    rates: Rates,
    step_s: Array,
    devices: Array,
    nodes: Array,
) -> Array:
    """1 where no failure rate is known: unknown reliability is not invented."""
    accelerator, pool = problem.pool.node.accelerator, problem.pool
    if accelerator.failures_per_hour is None and pool.preemptions_per_hour is None:
        return np.ones_like(step_s)
    failures = accelerator.failures_per_hour
    preempted = pool.preemptions_per_hour
    rate = failures_per_s(
        devices,
        failures.value if failures else 0.0,
        0.0,
        nodes,
        preempted.value if preempted else 0.0,
    )
    stall = checkpoint_stall_s(state.checkpoint, rates.host_bytes_per_s)
    return best_goodput_fraction(step_s, stall, rate, RESTART_S)


def _energy_parts(problem: Problem, step: StepColumns, rented: Array) -> EnergyParts | None:
    """Joules of one device in use and step, by cause; None where the device's power is not known.
    `rented` devices for each in use are on: machines are rented whole."""
    node, pool = problem.pool.node, problem.pool
    accelerator = node.accelerator
    power_w = power_range_w(accelerator)
    if power_w is None:
        return None
    idle_w, max_w = power_w
    overhead = node.power_overhead_w.value / node.num_accelerators if node.power_overhead_w else 0.0
    total = step.step_time_s
    parts = step.parts_s
    tensor = (parts["gemm"] + parts["attention"] + parts["recompute"]) / total
    memory = (parts["elementwise"] + parts["optimizer"]) / total
    link = step.messages_s / total
    return energy_parts_j(
        total,
        idle_w=idle_w,
        max_w=max_w,
        tensor_fraction=tensor,
        memory_fraction=memory,
        link_fraction=link,
        overhead_w_per_device=overhead,
        pue=pool.pue.value if pool.pue else 1.0,
        rented=rented,
    )


def _carbon(pool: Pool, energy_j: Array | None, nodes: Array, time_s: Array) -> Array | None:
    """Operational, location-based, and the embodied share of the rented machines with all their
    devices, as far as it is known; the facility's overhead is in the energy already."""
    if energy_j is None or pool.grid_kgco2e_per_kwh is None:
        return None
    total = operational_kgco2e(energy_j, 1.0, pool.grid_kgco2e_per_kwh.value)
    node, device = pool.node.embodied_kgco2e, pool.node.accelerator.embodied_kgco2e
    made = node.value if node else 0.0
    made += pool.node.num_accelerators * (device.value if device else 0.0)
    if made:
        total = total + embodied_kgco2e(made * nodes, time_s / SECONDS_PER_HOUR)
    return np.asarray(total)


def estimate_plans(problem: Problem, plans: Sequence[Plan]) -> list[Estimate]:
    """Estimates of single plans."""
    table = table_of(plans)
    columns = price_table(problem, table)
    return [estimate_at(problem, columns, table, index) for index in range(len(plans))]


def estimate_at(problem: Problem, columns: FleetColumns, table: PlanTable, index: int) -> Estimate:
    """One row of the columns as an `Estimate`."""

    def value(column: Array | None) -> float | None:
        return None if column is None else float(column[index])

    workload = problem.workload
    energy_parts = {}
    if columns.energy_parts is not None and columns.energy_j is not None:
        joules = {
            n.removesuffix("_j"): float(v[index]) for n, v in columns.energy_parts._asdict().items()
        }
        scale = float(columns.energy_j[index]) / sum(joules.values())
        energy_parts = {name: part * scale for name, part in joules.items()}
    outcome = Outcome(
        step_time_s=float(columns.step.step_time_s[index]),
        num_steps=workload.num_steps,
        startup_s=STARTUP_S,
        tokens_per_step=workload.tokens_per_step,
        flop_per_step=problem.flop_per_step,
        peak_memory_bytes=float(columns.footprint.peak_bytes[index]),
        step_parts_s={p: float(columns.step.parts_s[p][index]) for p in PARTS},
        memory_parts_bytes={
            p: float(columns.footprint.parts_bytes[p][index]) for p in MEMORY_PARTS
        },
        energy_j=value(columns.energy_j),
        energy_parts_j=energy_parts,
        energy_grade="unknown" if columns.energy_j is None else "modelled",
        cost_usd=value(columns.cost_usd),
        carbon_kgco2e=value(columns.carbon_kgco2e),
        goodput_fraction=float(columns.goodput_fraction[index]),
    )
    return Estimate(
        outcome=outcome,
        step_time_low_s=float(columns.step_time_low_s[index]),
        step_time_high_s=float(columns.step_time_high_s[index]),
        basis="; ".join(_basis(problem, fits_host=bool(columns.footprint.fits_host[index]))),
    )


def _basis(problem: Problem, *, fits_host: bool) -> list[str]:
    """What the estimate rests on, and what it leaves out."""
    accelerator = problem.pool.node.accelerator
    die, runs = accelerator.die, problem.fit.die(accelerator).num_runs
    if die in problem.fit.dies:
        said = [f"physics with efficiencies fitted on {runs} published runs of the die {die}"]
    else:
        name = accelerator.name
        said = [f"physics with its vendor's mean efficiencies: no published run of '{name}'"]
    if problem.pool.pue is None and accelerator.power_max_w is not None:
        said.append("energy is of the machines alone: the place's PUE is not known")
    if not fits_host:
        said.append("the offloaded optimizer state does not fit the host memory")
    return said


def work_of(problem: Problem, keys: PlanTable) -> Work:
    """The work of every layer key, for a search that indexes it."""
    return layer_work(
        problem.rows, layer_keys(keys, problem.workload.seq_len), problem.workload.seq_len
    )
