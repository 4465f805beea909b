"""The composer of training: steps on one device as parts that add up, for many plans at once.

Layer keys are priced once and summed (`layers`); a plan indexes its key and adds what happens
once a step (`update`), what it keeps in memory (`memory`) and what it costs to start.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from twofold.errors import InputError
from twofold.fleet import Accelerator, Curves, Fleet
from twofold.model import Model, Operator, num_parameters, operator_table, training_flop_per_token
from twofold.outcome import Estimate, Outcome
from twofold.perf import memory
from twofold.perf.efficiency import find_op, op_forward_s, require_curves
from twofold.perf.energy import modelled_energy_j
from twofold.perf.layers import layer_key, price_layers
from twofold.perf.update import accumulate_s, optimizer_s
from twofold.plan import Plan
from twofold.workload import Train

Array = NDArray[np.float64]

PARTS = ("gemm", "attention", "elementwise", "optimizer", "overhead")
MEMORY_PARTS = (
    "framework",
    "text",
    "weights",
    "gradients",
    "optimizer",
    "activations",
    "working",
    "heap",
)

COMPILE_S = 40.0
"""Assumed start-up of `torch.compile` for a small decoder: 35 to 59 s were seen on two cores."""

_MODEL_SPREAD = 0.08
"""What the composition itself gets wrong, one standard deviation: tests/perf keep it honest."""
_COMPILED_SPREAD = 0.15
_NORMAL_90 = 1.645
_TEXT_BYTES = 32e6
_FAULT_AROUND_BYTES = 65536.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainColumns:
    """Estimates of many plans, a column each: [plans]. Parts add up to step and peak."""

    step_parts_s: dict[str, Array]
    step_time_s: Array
    step_time_low_s: Array
    step_time_high_s: Array
    startup_s: Array
    time_s: Array
    memory_parts_bytes: dict[str, Array]
    peak_memory_bytes: Array


def estimate(model: Model, workload: Train, fleet: Fleet, plan: Plan) -> Estimate:
    """Predict one plan: one row of `estimate_columns`."""
    columns = estimate_columns(model, workload, fleet, [plan])
    return estimate_row(columns, 0, model, workload, fleet, plan)


def estimate_row(
    columns: TrainColumns, index: int, model: Model, workload: Train, fleet: Fleet, plan: Plan
) -> Estimate:
    """One plan's columns as an `Estimate`."""
    accelerator = fleet.pool(plan.pool).node.accelerator
    curves = require_curves(accelerator)
    busy_s = columns.time_s[index]
    energy_j = modelled_energy_j(accelerator, np.array([float(plan.threads)]), busy_s)
    outcome = Outcome(
        step_time_s=float(columns.step_time_s[index]),
        num_steps=workload.num_steps,
        startup_s=float(columns.startup_s[index]),
        tokens_per_step=workload.tokens_per_step,
        flop_per_step=training_flop_per_token(model, workload.seq_len) * workload.tokens_per_step,
        peak_memory_bytes=float(columns.peak_memory_bytes[index]),
        step_parts_s={part: float(column[index]) for part, column in columns.step_parts_s.items()},
        memory_parts_bytes={
            part: float(column[index]) for part, column in columns.memory_parts_bytes.items()
        },
        energy_j=None if energy_j is None else float(energy_j[0]),
        energy_grade="unknown" if energy_j is None else "modelled",
    )
    return Estimate(
        outcome=outcome,
        step_time_low_s=float(columns.step_time_low_s[index]),
        step_time_high_s=float(columns.step_time_high_s[index]),
        basis=f"measured curves of {accelerator.name} under {curves.framework}",
    )


def estimate_columns(
    model: Model, workload: Train, fleet: Fleet, plans: Sequence[Plan]
) -> TrainColumns:
    """Predict many plans of one pool. InputError where a figure that a plan needs is missing."""
    accelerator = fleet.pool(_one_pool(plans)).node.accelerator
    curves = require_curves(accelerator)
    rows = operator_table(model)
    keys = list(dict.fromkeys(layer_key(plan) for plan in plans))
    prices = price_layers(rows, curves, keys, workload.seq_len)
    place = {key: index for index, key in enumerate(keys)}
    index = np.array([place[layer_key(plan)] for plan in plans])
    micros = np.array([workload.recipe.global_batch / plan.micro_batch for plan in plans])
    step_parts_s = {
        part: prices.parts_s[part][index] * micros for part in ("gemm", "attention", "elementwise")
    }
    step_parts_s["optimizer"] = _optimizer_column(rows, curves, workload, plans)
    step_parts_s["overhead"] = (
        prices.parts_s["overhead"][index] * micros
        + (micros - 1) * _by_threads(plans, lambda t: accumulate_s(rows, curves, threads=t))
        + _by_threads(plans, lambda t: _batch_s(curves, workload, t))
    )
    step_parts_s = {part: step_parts_s[part] for part in PARTS}
    step_time_s = np.sum(list(step_parts_s.values()), axis=0)
    assumed = np.array([_COMPILED_SPREAD if plan.compile else 0.0 for plan in plans])
    spread = np.hypot(np.hypot(_MODEL_SPREAD, assumed), prices.spread[index])
    micro_s = np.sum([prices.parts_s[part][index] for part in prices.parts_s], axis=0)
    startup_s = _startup_s(curves, plans, micro_s)
    memory_parts = _memory_columns(model, rows, accelerator, curves, workload, plans)
    return TrainColumns(
        step_parts_s=step_parts_s,
        step_time_s=step_time_s,
        step_time_low_s=step_time_s * np.exp(-_NORMAL_90 * spread),
        step_time_high_s=step_time_s * np.exp(_NORMAL_90 * spread),
        startup_s=startup_s,
        time_s=startup_s + workload.num_steps * step_time_s,
        memory_parts_bytes=memory_parts,
        peak_memory_bytes=np.sum(list(memory_parts.values()), axis=0),
    )


def _one_pool(plans: Sequence[Plan]) -> str:
    pools = {plan.pool for plan in plans}
    if len(pools) != 1:
        raise InputError(
            f"plans over pools {sorted(pools)} cannot be estimated together",
            at="plan, pool",
            help="estimate the plans of one pool at a time",
        )
    return pools.pop()


def _by_threads(plans: Sequence[Plan], price: Callable[[int], float]) -> Array:
    prices = {threads: price(threads) for threads in {plan.threads for plan in plans}}
    return np.array([prices[plan.threads] for plan in plans])


def _optimizer_column(
    rows: Sequence[Operator], curves: Curves, workload: Train, plans: Sequence[Plan]
) -> Array:
    prices: dict[tuple[str, str, int], float] = {}
    for plan in plans:
        key = plan.optimizer_kernel, plan.orthogonal_precision, plan.threads
        if key not in prices:
            prices[key] = optimizer_s(
                rows,
                curves,
                optimizer=workload.recipe.optimizer,
                kernel=plan.optimizer_kernel,
                orthogonal_precision=plan.orthogonal_precision,
                orthogonal_steps=workload.recipe.orthogonal_steps,
                threads=plan.threads,
            )
    return np.array([prices[p.optimizer_kernel, p.orthogonal_precision, p.threads] for p in plans])


def _batch_s(curves: Curves, workload: Train, threads: int) -> float:
    """Gathering the tokens of one global batch from the text."""
    curve = find_op(curves, "batch", "fp32", threads)
    return float(op_forward_s(curve, np.array([float(workload.tokens_per_step)]))[0])


def _startup_s(curves: Curves, plans: Sequence[Plan], micro_s: Array) -> Array:
    """Process, framework, first touch of kernels, one warm-up micro-batch, and compiling."""
    fixed_s = _scalar(curves, "start_s") + _scalar(curves, "first_step_s")
    compile_s = np.array([COMPILE_S if plan.compile else 0.0 for plan in plans])
    startup_s: Array = fixed_s + micro_s + compile_s
    return startup_s


def _memory_columns(
    model: Model,
    rows: Sequence[Operator],
    accelerator: Accelerator,
    curves: Curves,
    workload: Train,
    plans: Sequence[Plan],
) -> dict[str, Array]:
    """On a CPU the peak is the process's resident set, framework and mapped text included; on
    other devices what the framework allocates there."""
    ones = np.ones(len(plans))
    on_host = accelerator.kind == "cpu"
    weights = memory.parameter_bytes(num_parameters(model))
    windows = workload.num_steps * workload.recipe.global_batch
    text_bytes = min(_TEXT_BYTES, windows * _FAULT_AROUND_BYTES)
    casts = np.array([memory.cast_bytes(rows, plan.precision) for plan in plans])
    activations, working = _activation_columns(rows, workload.seq_len, plans)
    heap = np.array([_heap_factor(curves, plan, on_host=on_host) for plan in plans])
    live = activations + working + weights
    columns = {
        "framework": (_scalar(curves, "base_memory_bytes") if on_host else 0.0) * ones,
        "text": (text_bytes if on_host else 0.0) * ones,
        "weights": weights + casts,
        "gradients": weights * ones,
        "optimizer": memory.optimizer_bytes(rows, workload.recipe.optimizer) * ones,
        "activations": activations,
        "working": working,
        "heap": (heap - 1.0) * live,
    }
    return {part: columns[part] for part in MEMORY_PARTS}


def _activation_columns(
    rows: Sequence[Operator], seq_len: int, plans: Sequence[Plan]
) -> tuple[Array, Array]:
    """Kept and transient bytes of each plan; what plans share is computed once."""
    kinds = [(p.precision, p.attention, p.recompute, p.micro_batch) for p in plans]
    held: dict[tuple[str, str, str, int], tuple[float, float]] = {}
    for kind in dict.fromkeys(kinds):
        precision, attention, level, micro_batch = kind
        tokens = np.array([float(micro_batch * seq_len)])
        saved, working = (
            of(rows, tokens, seq_len, precision=precision, level=level, attention=attention)[0]
            for of in (memory.saved_bytes, memory.working_bytes)
        )
        held[kind] = float(saved), float(working)
    columns = np.array([held[kind] for kind in kinds])
    return columns[:, 0], columns[:, 1]


def _heap_factor(curves: Curves, plan: Plan, *, on_host: bool) -> float:
    """Bytes the allocator holds for a byte that lives: what comes and goes within a step leaves
    holes. Devices with their own allocator report what is allocated, without holes."""
    return max(1.0, _scalar(curves, f"heap_factor_{plan.recompute}")) if on_host else 1.0


def _scalar(curves: Curves, name: str) -> float:
    figure = curves.scalars.get(name)
    if figure is None:
        raise InputError(
            f"the figure '{name}' is missing",
            at="fleet, curves, scalars",
            help="run `twofold calibrate` on that machine",
        )
    return figure.value
