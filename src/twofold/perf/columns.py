"""Plans and models as columns, as the composers read them: one row a plan."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from twofold.perf.collectives import Fabric
from twofold.perf.rates import Rates

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanColumns:
    """The plan of each row: [rows]. `schedule` are `schedule.CODES`; `devices` all of them.
    `unfused` flags software of before fused attention, `apart` such as adds gradients of further
    micro-batches in a pass of its own; `recomputed` is the fraction of a stage's layers that is
    recomputed in full; `width_bytes` of a weight as products read it is 4 in
    fp32 training, which then keeps no 32-bit copy, else 2."""

    devices: Array
    tensor: Array
    context: Array
    pipeline: Array
    data: Array
    expert: Array
    expert_tensor: Array
    zero_stage: Array
    shard: Array
    schedule: NDArray[np.int64]
    virtual: Array
    micro_batch: Array
    global_batch: Array
    offload: Array
    unfused: Array
    apart: Array
    recomputed: Array
    width_bytes: Array

    @property
    def micro_batches(self) -> Array:
        return self.global_batch / (self.data * self.micro_batch)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelColumns:
    """Parameters of each row's model by where they live, and its layers: [rows].

    `trainable_fraction` of them have gradients and optimizer state. `tied` of the head are the
    input's too: a copy of them where the last stage is not the first.
    """

    dense: Array
    experts: Array
    input: Array
    output: Array
    tied: Array
    layers: Array
    trainable_fraction: Array


Columns = TypeVar("Columns")


def take_columns(columns: Columns, index: NDArray[np.intp]) -> Columns:
    """Records of columns, of each plan those of the layer key, layout or order it has."""
    names = columns.__dataclass_fields__  # type: ignore[attr-defined]
    return replace(
        columns,  # type: ignore[type-var]
        **{name: np.take(getattr(columns, name), index, axis=-1) for name in names},
    )


def fabric_of(rates: Rates) -> Fabric:
    return Fabric(
        domain=rates.scale_up_domain,
        up_bytes_per_s=rates.up_bytes_per_s,
        up_latency_s=rates.up_latency_s,
        out_bytes_per_s=rates.out_bytes_per_s,
        out_latency_s=rates.out_latency_s,
        mesh_pair_bytes_per_s=rates.mesh_pair_bytes_per_s,
        torus_axes=rates.torus_axes,
    )
