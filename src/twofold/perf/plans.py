"""Plans as columns: the levers of many plans as small integers, and back.

A `PlanTable` holds one column a lever. What a layer's work depends on (`layer_keys`) repeats
over few thousand combinations however many plans there are; what is left are closed forms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from twofold.perf.columns import PlanColumns
from twofold.perf.work import LayerKeys
from twofold.plan import Attention, Offload, Plan, Precision, Recompute, Schedule

Integers = NDArray[np.int64]

PRECISIONS: tuple[Precision, ...] = get_args(Precision)
ATTENTIONS: tuple[Attention, ...] = get_args(Attention)
RECOMPUTES: tuple[Recompute, ...] = get_args(Recompute)
SCHEDULES: tuple[Schedule, ...] = get_args(Schedule)
OFFLOADS: tuple[Offload, ...] = get_args(Offload)
NARROW: tuple[Precision, ...] = ("fp8", "mxfp8", "nvfp4")
WIDE: tuple[Precision, ...] = ("fp32", "tf32")
"""Those that compute and keep everything in 32 bits; all others mix 16 bits and 32."""

_KEY_LEVERS = (
    "tensor",
    "context",
    "expert",
    "expert_tensor",
    "sequence_parallel",
    "micro_batch",
    "precision",
    "attention",
    "recompute",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanTable:
    """One column a lever: [plans]. `schedule precision attention recompute offload` are codes,
    the places in the tuples above. `recomputed_layers` counts, per stage, those recomputed in
    full: 0 unless `recompute` is."""

    data: Integers
    tensor: Integers
    context: Integers
    pipeline: Integers
    expert: Integers
    expert_tensor: Integers
    sequence_parallel: Integers
    zero_stage: Integers
    shard: Integers
    schedule: Integers
    virtual: Integers
    micro_batch: Integers
    precision: Integers
    attention: Integers
    recompute: Integers
    recomputed_layers: Integers
    offload: Integers

    def __len__(self) -> int:
        return len(self.data)

    def take(self, index: NDArray[np.intp] | slice) -> PlanTable:
        return PlanTable(**{f.name: getattr(self, f.name)[index] for f in fields(PlanTable)})

    @property
    def devices(self) -> Integers:
        return self.data * self.tensor * self.context * self.pipeline


def table_of(plans: Sequence[Plan]) -> PlanTable:
    """Plans of one pool as columns."""
    column = {
        "data": [p.data_degree for p in plans],
        "tensor": [p.tensor_degree for p in plans],
        "context": [p.context_degree for p in plans],
        "pipeline": [p.pipeline_degree for p in plans],
        "expert": [p.expert_degree for p in plans],
        "expert_tensor": [p.expert_tensor_degree for p in plans],
        "sequence_parallel": [int(p.sequence_parallel) for p in plans],
        "zero_stage": [p.zero_stage for p in plans],
        "shard": [p.shard_degree for p in plans],
        "schedule": [SCHEDULES.index(p.schedule) for p in plans],
        "virtual": [p.virtual_stages for p in plans],
        "micro_batch": [p.micro_batch for p in plans],
        "precision": [PRECISIONS.index(p.precision) for p in plans],
        "attention": [ATTENTIONS.index(p.attention) for p in plans],
        "recompute": [RECOMPUTES.index(p.recompute) for p in plans],
        "recomputed_layers": [_recomputed_layers(p) for p in plans],
        "offload": [OFFLOADS.index(p.offload) for p in plans],
    }
    return PlanTable(**{name: np.array(values, dtype=np.int64) for name, values in column.items()})


ALL_LAYERS = 2**31
"""More layers than any stage has: recompute them all."""


def _recomputed_layers(plan: Plan) -> int:
    if plan.recompute != "full":
        return 0
    return ALL_LAYERS if plan.recompute_layers is None else plan.recompute_layers


def plan_at(table: PlanTable, index: int, pool: str) -> Plan:
    """One row as a `Plan`."""
    row = {f.name: int(getattr(table, f.name)[index]) for f in fields(PlanTable)}
    return Plan(
        pool=pool,
        data_degree=row["data"],
        tensor_degree=row["tensor"],
        context_degree=row["context"],
        pipeline_degree=row["pipeline"],
        expert_degree=row["expert"],
        expert_tensor_degree=row["expert_tensor"],
        sequence_parallel=bool(row["sequence_parallel"]),
        zero_stage=row["zero_stage"],  # type: ignore[arg-type]
        shard_degree=row["shard"],
        schedule=SCHEDULES[row["schedule"]],
        virtual_stages=row["virtual"],
        micro_batch=row["micro_batch"],
        precision=PRECISIONS[row["precision"]],
        attention=ATTENTIONS[row["attention"]],
        recompute=RECOMPUTES[row["recompute"]],
        recompute_layers=_count_of(row),
        offload=OFFLOADS[row["offload"]],
        optimizer_kernel="fused",
    )


def _count_of(row: dict[str, int]) -> int | None:
    full = RECOMPUTES[row["recompute"]] == "full"
    return row["recomputed_layers"] if full and row["recomputed_layers"] < ALL_LAYERS else None


def distinct_keys(table: PlanTable) -> tuple[PlanTable, NDArray[np.intp]]:
    """The plans that differ in what a layer's work depends on, and which of them each plan is."""
    code = np.zeros(len(table), dtype=np.int64)
    for name in _KEY_LEVERS:
        column = getattr(table, name)
        code = code * (int(column.max()) + 1) + column
    _, first, index = np.unique(code, return_index=True, return_inverse=True)
    return table.take(first), index


def width_bytes(precision: Integers) -> NDArray[np.float64]:
    """Bytes of an activation and of a weight in products, by the codes of precisions."""
    return np.where(np.isin(precision, [PRECISIONS.index(p) for p in WIDE]), 4.0, 2.0)


def layer_keys(table: PlanTable, seq_len: int, *, frozen: bool = False) -> LayerKeys:
    """What a layer's work depends on, of every plan."""
    recompute = table.recompute
    one = np.ones(len(table))
    narrow = np.isin(table.precision, [PRECISIONS.index(p) for p in NARROW])
    return LayerKeys(
        tokens=table.micro_batch * one * seq_len,
        tensor=table.tensor * one,
        context=table.context * one,
        expert=table.expert * one,
        expert_tensor=table.expert_tensor * one,
        sequence_parallel=table.sequence_parallel * one,
        explicit=one * (table.attention == ATTENTIONS.index("explicit")),
        selective=one * (recompute == RECOMPUTES.index("selective")),
        narrow=one * narrow,
        frozen=one * frozen,
        width_bytes=width_bytes(table.precision),
    )


def plan_columns(table: PlanTable, global_batch: int, num_layers: int) -> PlanColumns:
    """What is left of a plan once the work of its layers is known."""
    one = np.ones(len(table))
    per_stage = np.ceil(num_layers / table.pipeline)
    return PlanColumns(
        devices=table.devices * one,
        tensor=table.tensor * one,
        context=table.context * one,
        pipeline=table.pipeline * one,
        data=table.data * one,
        expert=table.expert * one,
        expert_tensor=table.expert_tensor * one,
        zero_stage=table.zero_stage * one,
        shard=table.shard * one,
        schedule=table.schedule,
        virtual=table.virtual * one,
        micro_batch=table.micro_batch * one,
        global_batch=global_batch * one,
        offload=one * (table.offload == OFFLOADS.index("optimizer")),
        unfused=one * (table.attention == ATTENTIONS.index("explicit")),
        apart=one,
        recomputed=np.minimum(table.recomputed_layers / per_stage, 1.0),
        width_bytes=width_bytes(table.precision),
    )
