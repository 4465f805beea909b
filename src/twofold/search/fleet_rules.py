"""The rules that a plan on a pool must keep, each by its name, on columns of plans.

A search counts the plans that break each; a single plan that breaks one is refused by it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from twofold.errors import InputError
from twofold.perf.fleet import Problem
from twofold.perf.plans import PRECISIONS, SCHEDULES, PlanTable, table_of
from twofold.perf.speeds import NARROW_KEYS
from twofold.plan import Plan, Precision

Integers = NDArray[np.int64]
Columns = Mapping[str, Integers]
Stage = Literal["degrees", "experts", "sharding", "order"]

_DEFAULTS: tuple[Precision, ...] = ("bf16", "fp16", "fp32")
_INTERLEAVED = SCHEDULES.index("interleaved")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """`broken` flags the plans that break it; it looks only at levers known at its `stage`, the
    point of the enumeration where it is applied. `lever` is the one to change."""

    name: str
    lever: str
    stage: Stage
    broken: Callable[[Problem, Columns], NDArray[np.bool_]]
    help: str


def _kv_heads(problem: Problem) -> int:
    """Latent attention has one latent for all heads, which every tensor rank keeps."""
    return problem.model.heads if problem.model.latent else problem.model.kv_heads


def _tensor_splits_kv_heads(problem: Problem, c: Columns) -> NDArray[np.bool_]:
    kv_heads = _kv_heads(problem)
    return np.asarray((kv_heads % c["tensor"] != 0) & (c["tensor"] % kv_heads != 0))


def _share(problem: Problem, c: Columns) -> Integers:
    """Sequences of one data rank in a step."""
    return problem.workload.recipe.global_batch // c["data"]


def _ranks(c: Columns) -> Integers:
    return c["data"] * c["context"] * c["tensor"]


RULES: tuple[Rule, ...] = (
    Rule(
        name="an operator table is not divided by tensor or context ranks",
        lever="tensor_degree",
        stage="degrees",
        broken=lambda p, c: bool(p.model.operators) & ((c["tensor"] > 1) | (c["context"] > 1)),
        help="use data and pipeline degrees only",
    ),
    Rule(
        name="tensor does not divide the attention heads",
        lever="tensor_degree",
        stage="degrees",
        broken=lambda p, c: p.model.heads % c["tensor"] != 0,
        help="use a divisor of the number of heads",
    ),
    Rule(
        name="tensor neither divides nor is a multiple of the key/value heads",
        lever="tensor_degree",
        stage="degrees",
        broken=_tensor_splits_kv_heads,
        help="use a divisor of the key/value heads, or a multiple, which repeats them",
    ),
    Rule(
        name="tensor does not divide the feed-forward width",
        lever="tensor_degree",
        stage="degrees",
        broken=lambda p, c: p.model.ffn % c["tensor"] != 0,
        help="use a divisor of the width",
    ),
    Rule(
        name="more pipeline stages than layers",
        lever="pipeline_degree",
        stage="degrees",
        broken=lambda p, c: c["pipeline"] > p.model.layers,
        help="use fewer stages",
    ),
    Rule(
        name="context does not divide the sequence into two chunks a rank",
        lever="context_degree",
        stage="degrees",
        broken=lambda p, c: (c["context"] > 1) & (p.workload.seq_len % (2 * c["context"]) != 0),
        help="use a divisor of half the sequence length",
    ),
    Rule(
        name="data degree does not divide the global batch",
        lever="data_degree",
        stage="degrees",
        broken=lambda p, c: p.workload.recipe.global_batch % c["data"] != 0,
        help="use a divisor of the global batch",
    ),
    Rule(
        name="expert x expert-tensor degree does not divide data x context x tensor",
        lever="expert_degree",
        stage="experts",
        broken=lambda p, c: _ranks(c) % (c["expert"] * c["expert_tensor"]) != 0,
        help="use a divisor of data x context x tensor degree",
    ),
    Rule(
        name="expert degree does not divide the experts",
        lever="expert_degree",
        stage="experts",
        broken=lambda p, c: (p.model.experts.count if p.model.experts else 1) % c["expert"] != 0,
        help="use a divisor of the number of experts",
    ),
    Rule(
        name="expert-tensor degree does not divide the experts' width",
        lever="expert_tensor_degree",
        stage="experts",
        broken=lambda p, c: (
            (p.model.experts.ffn if p.model.experts else 1) % c["expert_tensor"] != 0
        ),
        help="use 1 or the tensor degree",
    ),
    Rule(
        name="ZeRO-2 or 3 with a pipeline would exchange gradients or weights every micro-batch",
        lever="zero_stage",
        stage="sharding",
        broken=lambda p, c: (c["zero_stage"] >= 2) & (c["pipeline"] > 1),
        help="use ZeRO-1 with a pipeline, as Megatron-LM and DeepSpeed do",
    ),
    Rule(
        name="micro-batch does not divide a data rank's batch",
        lever="micro_batch",
        stage="order",
        broken=lambda p, c: _share(p, c) % c["micro_batch"] != 0,
        help="use a divisor of global batch / data degree",
    ),
    Rule(
        name="sequence parallelism does not divide the sequence",
        lever="sequence_parallel",
        stage="order",
        broken=lambda p, c: (
            (c["sequence_parallel"] > 0) & (p.workload.seq_len % (c["tensor"] * c["context"]) != 0)
        ),
        help="turn it off, or use degrees that divide the sequence length",
    ),
    Rule(
        name="interleaved schedule needs micro-batches in multiples of the stages",
        lever="schedule",
        stage="order",
        broken=lambda p, c: (
            (c["schedule"] == _INTERLEAVED)
            & (_share(p, c) // c["micro_batch"] % c["pipeline"] != 0)
        ),
        help="use 1f1b, or another micro-batch",
    ),
    Rule(
        name="ZeRO-2 with several micro-batches would exchange gradients every time",
        lever="zero_stage",
        stage="order",
        broken=lambda p, c: (c["zero_stage"] == 2) & (_share(p, c) != c["micro_batch"]),
        help="use ZeRO-1 or 3",
    ),
)


def known_precisions(problem: Problem, precisions: tuple[Precision, ...]) -> list[Precision]:
    """Those that the device has a figure for."""
    known = problem.pool.node.accelerator.flop_per_s
    return [p for p in precisions if any(key in known for key in NARROW_KEYS[p])]


def default_precision(problem: Problem) -> Precision:
    """The 16-bit one the device has, bf16 before fp16; bf16 where it has none that is known."""
    return (*known_precisions(problem, _DEFAULTS), "bf16")[0]


def scale_up_domain(problem: Problem) -> int:
    """Devices that share the fast network; 1 where there is none."""
    up = problem.pool.node.link("scale-up")
    return (up.domain or problem.pool.node.num_accelerators) if up else 1


def check_network(problem: Problem, num_devices: int | None = None) -> None:
    """InputError where so many devices (unless said all of the pool) must talk over a network of
    which nothing is known."""
    node, domain = problem.pool.node, scale_up_domain(problem)
    devices = problem.pool.num_devices if num_devices is None else num_devices
    if devices > domain and node.link("scale-out") is None:
        raise InputError(
            f"the scale-out bandwidth of '{node.name}' is unknown, and {devices} devices must "
            "talk over it",
            at=f"fleet '{problem.pool.name}', scale_out.bandwidth_bytes_per_s",
            help="give it and the latency in a fleet.toml: machine_figures.scale_out."
            "bandwidth_bytes_per_s = 12.5e9, machine_figures.scale_out.latency_s = 1e-5; or use "
            f"at most {domain}",
        )


def broken_rules(problem: Problem, table: PlanTable) -> NDArray[np.bool_]:
    """The plans that break any rule."""
    columns = _columns(table)
    broken = np.zeros(len(table), dtype=bool)
    for rule in RULES:
        broken |= rule.broken(problem, columns)
    return broken


def _columns(table: PlanTable) -> dict[str, Integers]:
    return {name: getattr(table, name) for name in PlanTable.__dataclass_fields__}


def check_fleet_plan(problem: Problem, plan: Plan) -> None:
    """InputError where a given plan does not make sense on the pool; memory is not looked at."""
    table = table_of([plan])
    devices = int(table.devices[0])
    if devices > problem.pool.num_devices:
        raise InputError(
            f"data x tensor x context x pipeline degree is {devices} of "
            f"{problem.pool.num_devices} devices",
            at="plan",
            help="use degrees whose product is at most the number of devices",
        )
    check_network(problem, devices)
    columns = _columns(table)
    rule = next((rule for rule in RULES if rule.broken(problem, columns).any()), None)
    if rule is not None:
        value = getattr(plan, rule.lever)
        raise InputError(
            f"{rule.lever} {value}: {rule.name}", at=f"plan, {rule.lever}", help=rule.help
        )
    if not known_precisions(problem, (PRECISIONS[int(table.precision[0])],)):
        accelerator = problem.pool.node.accelerator
        raise InputError(
            f"'{accelerator.name}' has no {plan.precision} matrix rate that is known",
            at="plan, precision",
            help="use one of: " + ", ".join(accelerator.flop_per_s),
        )
