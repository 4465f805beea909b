"""Every plan of a space, priced: layer keys and layouts once, plans from them in chunks.

Two tables hold what is expensive (`LayerColumns` by layer key, `LayoutColumns` and
`StateColumns` by layout); a plan is an index into each and a few closed forms. Chunks of some
sixteen thousand rows stay in the processor's cache, and no table is ever as long as the space.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from twofold.perf.cluster import LayerColumns, OrderColumns, layer_columns, order_columns
from twofold.perf.columns import ModelColumns, PlanColumns, take_columns
from twofold.perf.fleet import FleetColumns, Problem, compose_plans, rates_of, work_of
from twofold.perf.footprint import StateColumns, layers_to_recompute, state_columns
from twofold.perf.host import host_of
from twofold.perf.layout import LayoutColumns, layout_columns
from twofold.perf.parameters import model_columns
from twofold.perf.plans import ALL_LAYERS, PlanTable, plan_columns, width_bytes
from twofold.perf.rates import Rates
from twofold.search.fleet_space import FleetSpace, distinct_rows
from twofold.search.floors import Floors, make_floors

Array = NDArray[np.float64]
Integers = NDArray[np.int64]

TOO_BIG = "does not fit the memory"
"""The reason for which plans that break no rule are not priced."""
CHUNK_ROWS = 16_384
"""Pairs of layout and order at a time."""
_LAYOUT_KEYS = ("tensor", "context", "expert", "expert_tensor")
_ORDER_KEYS = ("micro_batch", "sequence_parallel", "precision")

Worth = Callable[[Array, Array], NDArray[np.bool_]]
"""Which plans may be wanted, by the least time that each can take and its number of devices."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PricedSpace:
    """A space with its two tables. Layer key of a plan = `layer_of_layout` + `layer_of_order`; the
    rows of `layout` and `state` are the space's layouts once for each width of weights, those of a
    plan at its layout + `width_of_order`."""

    problem: Problem
    space: FleetSpace
    layers: LayerColumns
    layer_of_layout: Integers
    layer_of_order: Integers
    width_of_order: Integers
    layout: LayoutColumns
    state: StateColumns
    order: OrderColumns
    floors: Floors
    model: ModelColumns
    rates: Rates


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Plans that fit the memory, priced. A row is a pair of `layout` and `order`, with
    its `recomputed_layers` (0: none)."""

    layout: Integers
    order: Integers
    recomputed_layers: Integers
    columns: FleetColumns


def price_space(problem: Problem, space: FleetSpace) -> PricedSpace:
    """The two tables of a space."""
    outer, of_layout = distinct_rows(space.layouts, _LAYOUT_KEYS)
    inner, of_order = distinct_rows(space.orders, _ORDER_KEYS)
    num_outer, num_inner = len(outer["tensor"]), len(inner["micro_batch"])
    keys = {name: np.repeat(column, num_inner) for name, column in outer.items()}
    keys |= {name: np.tile(column, num_outer) for name, column in inner.items()}
    key_table = _table(keys)
    layouts, width_of_order = _by_width(space)
    one_model = model_columns(problem.rows, 1)
    rates = rates_of(problem, key_table)
    layers = layer_columns(work_of(problem, key_table), _columns(problem, key_table), rates)
    one_rate = Rates(**{f.name: getattr(rates, f.name)[:1] for f in fields(Rates)})
    layout_plan = _columns(problem, _table(layouts))
    host = host_of(problem.pool.node)
    layout = layout_columns(layout_plan, one_model, one_rate, host)
    order = order_columns(_columns(problem, _table(space.orders)), one_model)
    return PricedSpace(
        problem=problem,
        space=space,
        layers=layers,
        layer_of_layout=of_layout * num_inner,
        layer_of_order=of_order,
        width_of_order=width_of_order,
        layout=layout,
        state=state_columns(layout_plan, one_model, host),
        order=order,
        floors=make_floors(problem, layers, layout, order),
        model=one_model,
        rates=one_rate,
    )


def priced_chunks(
    priced: PricedSpace, limit_bytes: float, worth: Worth | None = None
) -> Iterator[tuple[Chunk | None, int, int]]:
    """All plans of the space in its order: those that fit and may be `worth` pricing (unless said
    all), how many fit, and how many others there are."""
    space = priced.space
    ends = np.cumsum(space.count)
    start = 0
    while start < len(ends):
        done = ends[start] - space.count[start]
        stop = max(int(np.searchsorted(ends, done + CHUNK_ROWS, side="right")), start + 1)
        count = space.count[start:stop]
        layout = np.repeat(np.arange(start, stop), count)
        within = np.arange(len(layout)) - np.repeat(np.cumsum(count) - count, count)
        order = np.repeat(space.first[start:stop], count) + within
        yield _priced(priced, layout, order, limit_bytes, worth)
        start = stop


def _priced(
    priced: PricedSpace,
    layout: Integers,
    order: Integers,
    limit_bytes: float,
    worth: Worth | None,
) -> tuple[Chunk | None, int, int]:
    key = priced.layer_of_layout[layout] + priced.layer_of_order[order]
    held = layout + priced.width_of_order[order]
    state, how = take_columns(priced.state, held), take_columns(priced.order, order)
    none, least, whole = layers_to_recompute(
        np.take(priced.layers.saved_bytes, key, axis=-1),
        np.take(priced.layers.inputs_bytes, key),
        state,
        how,
        priced.model,
        limit_bytes,
    )
    per_stage = how.fullest_share * priced.model.layers
    between = ~none & (least < per_stage)
    num_fitting = sum(int(level.sum()) for level in (none, between, whole))
    num_too_big = 2 * len(none) + int(between.sum()) - num_fitting
    if worth is not None:
        some, all_layers = (
            worth(priced.floors.time_s(level, key, held, order), how.devices) for level in (0, 1)
        )
        none, between, whole = none & some, between & some, whole & all_layers
    row = np.concatenate([np.flatnonzero(level) for level in (none, between, whole)])
    if not len(row):
        return None, num_fitting, num_too_big
    num_none, num_between = int(none.sum()), int(between.sum())
    recomputed = np.full(len(row), ALL_LAYERS, dtype=np.int64)
    recomputed[:num_none] = 0
    recomputed[num_none : num_none + num_between] = least[between]
    columns = compose_plans(
        priced.problem,
        take_columns(priced.layers, key[row]),
        take_columns(priced.layout, held[row]),
        take_columns(state, row),
        take_columns(how, row),
        np.minimum(recomputed / per_stage[row], 1.0),
        priced.model,
        priced.rates,
    )
    chunk = Chunk(
        layout=layout[row], order=order[row], recomputed_layers=recomputed, columns=columns
    )
    return chunk, num_fitting, num_too_big


def _by_width(space: FleetSpace) -> tuple[dict[str, Integers], Integers]:
    """The layouts once for each width of weights that the precisions of the orders have, and how
    many rows those of an order begin after the first."""
    precision, size = space.orders["precision"], len(space.first)
    widths, example, which = np.unique(
        width_bytes(precision), return_index=True, return_inverse=True
    )
    layouts = {name: np.tile(column, len(widths)) for name, column in space.layouts.items()}
    layouts["precision"] = np.repeat(precision[example], size)
    return layouts, which.reshape(-1) * size


def _table(levers: dict[str, Integers]) -> PlanTable:
    """A table with some of the levers, the others neutral."""
    size = len(next(iter(levers.values())))
    neutral = {"zero_stage", "shard", "attention", "recompute", "recomputed_layers", "offload"}
    neutral |= {"schedule", "sequence_parallel", "precision"}
    return PlanTable(
        **{
            f.name: levers.get(f.name, np.full(size, 0 if f.name in neutral else 1, dtype=np.int64))
            for f in fields(PlanTable)
        }
    )


def _columns(problem: Problem, table: PlanTable) -> PlanColumns:
    return plan_columns(table, problem.workload.recipe.global_batch, problem.model.layers)
