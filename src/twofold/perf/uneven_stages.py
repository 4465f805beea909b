"""What a pipeline stage takes on a pool, as a function of the layers it holds.

A stage is a model of so many layers that is not divided any further, with the embedding if it is
the first and the head if it is the last: the uniform accounting serves it as it is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from twofold.fleet import Fleet, Pool
from twofold.model import Model, operator_table
from twofold.perf.cluster import LAYER_PARTS, OrderColumns, layer_columns
from twofold.perf.columns import ModelColumns, PlanColumns, take_columns
from twofold.perf.efficiency import require_curves
from twofold.perf.fleet import Problem, rates_of, work_of
from twofold.perf.footprint import compose_footprint, state_columns
from twofold.perf.host import host_of
from twofold.perf.layers import layer_key, price_layers
from twofold.perf.layout import layout_columns
from twofold.perf.memory import saved_bytes
from twofold.perf.parameters import model_columns
from twofold.perf.plans import plan_columns, table_of
from twofold.perf.rates import overlapped_s
from twofold.perf.train import estimate_columns
from twofold.perf.uneven import quota_slowdown
from twofold.perf.update import accumulate_s, optimizer_s
from twofold.plan import Plan
from twofold.workload import Train

Array = NDArray[np.float64]

_SEGMENT = {"tower": 0, "input": 0, "block": 1, "output": 2}
_RESIDUAL_BYTES = 4.0
"""Under autocast the residual stream between layers stays in 32 bits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageCosts:
    """Seconds of one micro-batch: `block_s` of each layer, `first_s` and `last_s` of the ends;
    `arithmetic_fraction` of it is products and attention. By [first, last, layers]: `once_s` a
    step (optimizer, and what of the exchange among the stage's ranks is not hidden),
    `peak_bytes` with one micro-batch in flight and `more_bytes` for each other one.
    `boundary_bytes` go to the next stage from each of `senders` devices."""

    block_s: Array
    first_s: float
    last_s: float
    arithmetic_fraction: float
    once_s: Array
    peak_bytes: Array
    more_bytes: Array
    usable_bytes: float
    boundary_bytes: float
    senders: int
    overlap: float
    half_width: float
    startup_s: float

    def fits(self, in_flight: float, *, first: bool, last: bool) -> NDArray[np.bool_]:
        """[layers]: whether 1, 2 .. layers fit with so many micro-batches in flight."""
        kept = self.peak_at(in_flight, first=first, last=last)
        return np.asarray(kept <= self.usable_bytes)

    def peak_at(self, in_flight: float, *, first: bool, last: bool) -> Array:
        place = int(first), int(last)
        return np.asarray(self.peak_bytes[place] + (in_flight - 1.0) * self.more_bytes[place])


def fleet_stage_costs(problem: Problem, plan: Plan, limit_bytes: float) -> StageCosts:
    """On a catalog pool, under the plan's tensor, data and micro-batch degrees; its data ranks
    are those of one stage."""
    layers = problem.model.layers
    table = table_of([replace(plan, pipeline_degree=1, stages=(), pool=problem.pool.name)])
    columns = plan_columns(table, problem.workload.recipe.global_batch, layers)
    rates, host = rates_of(problem, table), host_of(problem.pool.node)
    priced = layer_columns(work_of(problem, table), columns, rates)
    again = priced.again_s[0 if plan.recompute == "full" else 1][:, 0]
    micro = priced.once_s[:, 0] + again
    arithmetic = sum(priced.parts_s[LAYER_PARTS.index(n)].sum() for n in ("gemm", "attention"))
    # Rows: first and last or not, by 1, 2 .. layers.
    first, last, share = (
        axis.ravel()
        for axis in np.meshgrid(
            [0.0, 1.0], [0.0, 1.0], np.arange(1.0, layers + 1.0) / layers, indexing="ij"
        )
    )
    model = _stage_models(model_columns(problem.rows, len(share)), first, last, share)
    plans = take_columns(columns, np.zeros(len(share), dtype=np.intp))
    layout, state = layout_columns(plans, model, rates, host), state_columns(plans, model, host)
    scale = np.stack([first, share, last])
    one, two = (
        compose_footprint(
            scale * priced.saved_bytes,
            share * priced.inputs_bytes,
            state,
            _whole_stage(plans, flight),
            plans.recomputed,
            model,
        ).peak_bytes.reshape(2, 2, layers)
        for flight in (1.0, 2.0)
    )
    seconds = micro @ scale
    exposed = overlapped_s(seconds, layout.exchange_s, rates.data_overlap) - seconds
    # Gradients are added up after every micro-batch but the first.
    added = np.broadcast_to(layout.accumulate_s, share.shape)
    once = layout.optimizer_s - added + exposed + rates.step_s
    added = added.reshape(2, 2, layers)[..., -1]
    micro = micro + np.array([added[1, 0], added[0, 0], added[0, 1]])
    micro[[0, 2]] -= added[0, 0]
    return StageCosts(
        block_s=np.full(layers, micro[1] / layers),
        first_s=float(micro[0]),
        last_s=float(micro[2]),
        arithmetic_fraction=float(arithmetic / micro.sum()),
        once_s=once.reshape(2, 2, layers),
        peak_bytes=one,
        more_bytes=two - one,
        usable_bytes=min(limit_bytes, problem.pool.node.accelerator.memory.usable_bytes.value),
        boundary_bytes=float(priced.boundary_bytes[0]) / plan.tensor_degree,
        senders=plan.data_degree * plan.tensor_degree,
        overlap=float(rates.pipeline_overlap[0]),
        half_width=problem.fit.spread_of(problem.pool.node.accelerator),
        startup_s=0.0,
    )


def local_stage_costs(
    model: Model, workload: Train, pool: Pool, plan: Plan, exchange_s: float, limit_bytes: float
) -> StageCosts:
    """Of processes on a calibrated processor. `exchange_s` is what the whole model's gradients
    take among the ranks of a stage; a stage has its share of it."""
    rows, layers = operator_table(model), model.layers
    curves = require_curves(pool.node.accelerator)
    slower = quota_slowdown(pool, plan.threads)
    prices = price_layers(rows, curves, [layer_key(plan)], workload.seq_len)
    segment = np.array([_SEGMENT[row.segment] for row in rows])
    micro = np.array([prices.row_s[segment == s, 0].sum() for s in range(3)])
    held = np.array(
        [sum(float(r.parameters * r.repeat) for r, s in zip(rows, segment, strict=True) if s == k)
         for k in range(3)]
    )  # fmt: skip
    share = held / held.sum()
    accumulate = accumulate_s(rows, curves, threads=plan.threads)
    micro = slower * (micro + accumulate * share)
    once = exchange_s + slower * optimizer_s(
        rows,
        curves,
        optimizer=workload.recipe.optimizer,
        kernel=plan.optimizer_kernel,
        orthogonal_precision=plan.orthogonal_precision,
        orthogonal_steps=workload.recipe.orthogonal_steps,
        threads=plan.threads,
    )
    count = np.arange(1.0, layers + 1.0)
    once_s = np.array(
        [[once * (f * share[0] + share[1] * count / layers + e * share[2]) for e in (0, 1)]
         for f in (0, 1)]
    )  # fmt: skip
    peak, more = _local_bytes(model, workload, pool, plan, share)
    arithmetic = sum(float(prices.parts_s[part][0]) for part in ("gemm", "attention"))
    return StageCosts(
        block_s=np.full(layers, micro[1] / layers),
        first_s=float(micro[0]),
        last_s=float(micro[2]),
        arithmetic_fraction=slower * arithmetic / float(micro.sum()),
        once_s=once_s,
        peak_bytes=peak,
        more_bytes=more,
        usable_bytes=min(limit_bytes, pool.node.accelerator.memory.usable_bytes.value),
        boundary_bytes=_RESIDUAL_BYTES * plan.micro_batch * workload.seq_len * model.hidden,
        senders=plan.data_degree,
        overlap=0.0,
        half_width=float(1.645 * np.hypot(0.08, prices.spread[0])),
        startup_s=0.0,
    )


def _local_bytes(
    model: Model, workload: Train, pool: Pool, plan: Plan, share: Array
) -> tuple[Array, Array]:
    """[first, last, layers]: the whole model's parts by what a stage has of them. `share` are
    fractions of the parameters in the input, the layers and the output; the largest transient may
    be any stage's."""
    fleet = Fleet(name=pool.name, pools=(pool,))
    alone = replace(plan, pool=pool.name, data_degree=1, pipeline_degree=1, stages=())
    columns = estimate_columns(model, workload, fleet, [alone]).memory_parts_bytes
    parts = {name: float(column[0]) for name, column in columns.items()}
    rows, tokens = operator_table(model), np.array([1.0 * plan.micro_batch * workload.seq_len])
    kept = np.zeros(3)
    for row in rows:
        kept[_SEGMENT[row.segment]] += saved_bytes(
            [row],
            tokens,
            workload.seq_len,
            precision=plan.precision,
            level=plan.recompute,
            attention=plan.attention,
        )[0]
    has = np.stack(
        np.broadcast_arrays(
            np.array([0.0, 1.0])[:, None, None],
            np.arange(1.0, model.layers + 1.0) / model.layers,
            np.array([0.0, 1.0])[None, :, None],
        ),
        axis=-1,
    )
    held, activations = has @ share, has @ kept
    live = parts["activations"] + parts["working"] + parts["weights"]
    loose = parts["heap"] / live
    state = parts["weights"] + parts["gradients"] + parts["optimizer"]
    peak = parts["framework"] + parts["text"] + held * (state + loose * parts["weights"])
    peak = peak + (1.0 + loose) * (activations + parts["working"])
    return peak, (1.0 + loose) * activations


def _stage_models(model: ModelColumns, first: Array, last: Array, share: Array) -> ModelColumns:
    """Models of a share of the layers, with the ends where they are; a last stage that is not the
    first holds a copy of a tied table."""
    return replace(
        model,
        dense=model.dense * share,
        experts=model.experts * share,
        input=first * model.input,
        output=last * (model.output + (1.0 - first) * model.tied),
        tied=0.0 * model.tied,
        layers=model.layers * share,
    )


def _whole_stage(plan: PlanColumns, in_flight: float) -> OrderColumns:
    """The order of a stage that stands alone, but keeps more than one micro-batch."""
    one = np.ones_like(plan.data)
    return OrderColumns(
        devices=plan.devices,
        stages=one,
        schedule=plan.schedule,
        virtual=one,
        micro_batches=plan.micro_batches,
        slowest_share=one,
        fullest_share=one,
        end_shares=np.ones((2, len(one))),
        in_flight=in_flight * np.ones((2, len(one))),
        messages=0.0 * one,
    )
