"""Published rows as columns that can be priced together, whatever model or machine each is of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from twofold.calibrate.published import (
    Assumptions,
    PublishedRow,
    UnanswerableError,
    measured_step_s,
    row_model,
)
from twofold.calibrate.settings import Setting, row_setting
from twofold.errors import TwofoldError
from twofold.fleet import Node
from twofold.model import operator_table
from twofold.perf.cluster import step_columns
from twofold.perf.columns import ModelColumns, PlanColumns
from twofold.perf.flop import counted_flop_per_step
from twofold.perf.footprint import footprint_columns, least_recomputed
from twofold.perf.parameters import model_columns
from twofold.perf.plans import NARROW, layer_keys, plan_columns, table_of
from twofold.perf.rates import EfficiencyColumns, HardwareColumns, Shared, reached
from twofold.perf.speeds import Efficiencies, age_months, hardware_columns
from twofold.perf.work import Work, join, layer_work, take

Array = NDArray[np.float64]
FindNode = Callable[[str], Node]

EFFICIENCY_FIELDS = ("gemm", "fp8", "fp4", "attention", "memory", "call_s")


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """Every plan of every row as columns [candidates]; `owner` is the row a candidate is of."""

    work: Work
    plan: PlanColumns
    model: ModelColumns
    hardware: HardwareColumns
    usable_bytes: Array
    owner: NDArray[np.int64]
    die: tuple[str, ...]
    vendor: tuple[str, ...]
    narrow: tuple[str, ...]
    up_fabric: tuple[str, ...]
    out_fabric: tuple[str, ...]

    def take(self, index: NDArray[np.intp]) -> Candidates:
        def columns(value: object) -> dict[str, Array]:
            return {f.name: np.take(getattr(value, f.name), index) for f in fields(value)}  # type: ignore[arg-type]

        def names(values: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(values[i] for i in index)

        return Candidates(
            work=take(self.work, index),
            plan=PlanColumns(**columns(self.plan)),  # type: ignore[arg-type]
            model=ModelColumns(**columns(self.model)),
            hardware=HardwareColumns(**columns(self.hardware)),
            usable_bytes=self.usable_bytes[index],
            owner=self.owner[index],
            die=names(self.die),
            vendor=names(self.vendor),
            narrow=names(self.narrow),
            up_fabric=names(self.up_fabric),
            out_fabric=names(self.out_fabric),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PricedRows:
    """The answerable rows with their settings and measured times, all candidates as columns."""

    rows: tuple[PublishedRow, ...]
    settings: tuple[Setting, ...]
    measured_s: Array
    candidates: Candidates
    refused: Counter[str]
    unmeasured: int
    assumed: Assumptions
    num_read: int


def price_rows(rows: Sequence[PublishedRow], find_node: FindNode) -> PricedRows:
    """Everything of the rows that does not depend on efficiencies, once."""
    kept: list[PublishedRow] = []
    settings: list[Setting] = []
    times: list[float] = []
    refused: Counter[str] = Counter()
    unmeasured = 0
    assumed = Assumptions()
    blocks: list[tuple[Work, PlanColumns, ModelColumns, HardwareColumns, Setting]] = []
    cache: dict[object, Work] = {}
    for row in rows:
        guessed = Assumptions()
        try:
            model = row_model(row, guessed)
            setting = row_setting(row, model, find_node, guessed)
            block = _block(setting, cache)
        except UnanswerableError as reason:
            refused[str(reason)] += 1
            continue
        except TwofoldError as error:
            refused[error.what] += 1
            continue
        assumed.counts += guessed.counts
        flop = counted_flop_per_step(
            model, setting.seq_len, setting.global_batch, row.label("flops_counting")
        )
        time_s = measured_step_s(row, flop)
        if time_s is None:
            unmeasured += 1
        kept.append(row)
        settings.append(setting)
        times.append(np.nan if time_s is None else time_s)
        blocks.append((*block, setting))
    if not kept:
        reasons = ", ".join(refused) or "there is none"
        raise UnanswerableError(f"no row can be answered: {reasons}")
    return PricedRows(
        rows=tuple(kept),
        settings=tuple(settings),
        measured_s=np.array(times),
        candidates=_joined(blocks),
        refused=refused,
        unmeasured=unmeasured,
        assumed=assumed,
        num_read=len(rows),
    )


def _block(
    setting: Setting, cache: dict[object, Work]
) -> tuple[Work, PlanColumns, ModelColumns, HardwareColumns]:
    rows = operator_table(setting.model)
    table = table_of(setting.plans)
    key = (replace(setting.model, name=""), setting.seq_len, setting.frozen, setting.plans)
    if key not in cache:
        keys = layer_keys(table, setting.seq_len, frozen=setting.frozen)
        cache[key] = layer_work(rows, keys, float(setting.seq_len))
    months = age_months(setting.node.accelerator.launched, setting.date)
    model = model_columns(rows, len(table), adapter_parameters=setting.adapter_parameters)
    plan = plan_columns(table, setting.global_batch, setting.model.layers)
    if setting.accumulates_in_products:
        plan = replace(plan, apart=np.zeros(len(table)))
    if not setting.recompute_known:
        usable = setting.node.accelerator.memory.usable_bytes.value * np.ones(len(table))
        plan = replace(plan, recomputed=least_recomputed(cache[key], plan, model, usable))
    return (
        cache[key],
        plan,
        model,
        hardware_columns(setting.node, setting.plans[0].precision, months, len(table)),
    )


def _joined(
    blocks: list[tuple[Work, PlanColumns, ModelColumns, HardwareColumns, Setting]],
) -> Candidates:
    def columns(place: int, kind: type) -> dict[str, Array]:
        return {
            f.name: np.concatenate([np.atleast_1d(getattr(b[place], f.name)) for b in blocks])
            for f in fields(kind)
        }

    sizes = [len(block[4].plans) for block in blocks]

    def each(name: Callable[[Setting], str]) -> tuple[str, ...]:
        return tuple(name(b[4]) for b, size in zip(blocks, sizes, strict=True) for _ in range(size))

    def fabric(setting: Setting, scope: str) -> str:
        link = setting.node.link(scope)  # type: ignore[arg-type]
        return link.fabric if link is not None else scope

    return Candidates(
        work=join([block[0] for block in blocks]),
        plan=PlanColumns(**columns(1, PlanColumns)),  # type: ignore[arg-type]
        model=ModelColumns(**columns(2, ModelColumns)),
        hardware=HardwareColumns(**columns(3, HardwareColumns)),
        usable_bytes=np.concatenate(
            [
                np.full(size, b[4].node.accelerator.memory.usable_bytes.value)
                for b, size in zip(blocks, sizes, strict=True)
            ]
        ),
        owner=np.repeat(np.arange(len(blocks)), sizes),
        die=each(lambda s: s.node.accelerator.die or s.node.accelerator.name),
        vendor=each(lambda s: s.node.accelerator.vendor.lower()),
        narrow=each(lambda s: _narrow_class(s.plans[0].precision)),
        up_fabric=each(lambda s: fabric(s, "scale-up")),
        out_fabric=each(lambda s: fabric(s, "scale-out")),
    )


def _narrow_class(precision: str) -> str:
    if precision not in NARROW:
        return "gemm"
    return "fp4" if precision == "nvfp4" else "fp8"


def candidate_step_s(
    candidates: Candidates, efficiency: EfficiencyColumns, shared: Shared
) -> Array:
    """Predicted step time of every candidate."""
    rates = reached(candidates.hardware, efficiency, shared)
    return step_columns(candidates.work, candidates.plan, candidates.model, rates).step_time_s


def candidate_bytes(candidates: Candidates) -> Array:
    return footprint_columns(candidates.work, candidates.plan, candidates.model).peak_bytes


def chosen_candidates(candidates: Candidates, step_s: Array, peak_bytes: Array) -> NDArray[np.intp]:
    """Per row the fastest candidate that fits; the leanest where none does."""
    fits = peak_bytes <= candidates.usable_bytes
    score = np.where(fits, step_s, 1e9 + peak_bytes)
    order = np.lexsort((score, candidates.owner))
    _, first = np.unique(candidates.owner[order], return_index=True)
    return order[first]


def efficiency_of(candidates: Candidates, fit: Efficiencies) -> EfficiencyColumns:
    """The fit's values, a column each."""
    dies = [
        fit.dies.get(die) or fit.vendors.get(vendor) or fit.vendors["all"]
        for die, vendor in zip(candidates.die, candidates.vendor, strict=True)
    ]
    ups = [fit.fabrics.get(name) or fit.fabrics["scale-up"] for name in candidates.up_fabric]
    outs = [fit.fabrics.get(name) or fit.fabrics["scale-out"] for name in candidates.out_fabric]
    return EfficiencyColumns(
        narrow=np.array(
            [getattr(die, kind) for die, kind in zip(dies, candidates.narrow, strict=True)]
        ),
        wide=np.array([die.gemm for die in dies]),
        attention=np.array([die.attention for die in dies]),
        memory=np.array([die.memory for die in dies]),
        call_s=np.array([die.call_s for die in dies]),
        up=np.array([fabric.bandwidth for fabric in ups]),
        up_latency_s=np.array([fabric.latency_s for fabric in ups]),
        out=np.array([fabric.bandwidth for fabric in outs]),
        out_latency_s=np.array([fabric.latency_s for fabric in outs]),
        pace=np.array([die.pace for die in dies]),
    )
