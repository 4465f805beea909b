"""Rows of the probe into a one-node fleet with measured figures and curves."""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterable, Mapping
from typing import Any

from twofold.calibrate.fits import (
    fit_attention,
    fit_linear,
    fit_orthogonalise,
    make_op_curve,
)
from twofold.calibrate.heap import heap_factor
from twofold.calibrate.rows import MOSTLY_CLEAN, Row, grouped, merge_rounds, of_kind
from twofold.calibrate.sockets import fit_socket_path
from twofold.errors import InputError
from twofold.figure import Figure
from twofold.fleet import Accelerator, Curves, Fleet, Link, MemoryTier, Node, Pool
from twofold.host import modelled_power_w
from twofold.perf.sockets import MESSAGE_SCALAR, RATE_SCALAR

SOURCE = "twofold calibrate"
_USABLE_FRACTION = 0.9


def calibrate_from_rows(
    rows: Iterable[Row], host: Mapping[str, Any], *, date: str | None = None
) -> Fleet:
    """Fit the rows to a fleet of one node, pool "local".

    `host` may name it (`name`) and is otherwise kept by the overlay; `date` is that of the
    measurement, today when left out. InputError when the rows lack what every plan needs.
    """
    date = date or datetime.date.today().isoformat()
    merged = merge_rounds(rows)
    machine = _only(of_kind(merged, "machine"), "machine")
    name = str(host.get("name") or machine["processor"])
    measured = _Measured(date)
    gpu = machine["device"] == "cuda"
    copies = of_kind(merged, "copy")
    accelerator = Accelerator(
        name=str(machine["processor"]),
        kind="gpu" if gpu else "cpu",
        memory=MemoryTier(
            name="device" if gpu else "main",
            usable_bytes=measured.figure(_USABLE_FRACTION * machine["memory_bytes"], "B"),
            bandwidth_bytes_per_s=measured.best_rate(copies, "bytes", "B/s"),
        ),
        flop_per_s=_roofs(merged, measured),
        threads=int(machine["threads"]),
        power_idle_w=None if gpu else _power(machine, 0.0, date),
        power_max_w=None if gpu else _power(machine, 1.0, date),
        curves=Curves(
            framework=str(machine["framework"]),
            gemm=_gemm_curves(merged, date),
            attention=tuple(
                fit_attention(group)
                for group in grouped(
                    of_kind(merged, "attention"), "kernel", "precision", "threads"
                ).values()
            ),
            ops=tuple(
                make_op_curve(group)
                for group in grouped(of_kind(merged, "op"), "op", "precision", "threads").values()
            ),
            scalars=_scalars(merged, measured),
            conditions=_conditions(merged, machine),
        ),
    )
    node = Node(name=name, accelerator=accelerator, links=_links(merged, measured))
    return Fleet(name=name, pools=(Pool(name="local", node=node),))


class _Measured:
    """Makes figures that say they were measured, and when."""

    def __init__(self, date: str) -> None:
        self.date = date

    def figure(self, value: float, unit: str, spread: float | None = None) -> Figure:
        return Figure(
            value=value, unit=unit, basis="measured", source=SOURCE, date=self.date, spread=spread
        )

    def best_rate(self, rows: list[Row], amount: str, unit: str) -> Figure | None:
        if not rows:
            return None
        best = max(rows, key=lambda row: float(row[amount] / row["time_s"]))
        return self.figure(best[amount] / best["time_s"], unit, best.get("spread"))


def _power(machine: Row, utilisation: float, date: str) -> Figure:
    """Power of a guest's processor and memory at a utilisation: the middle of the published
    range, which is so wide that it is never evidence of a saving."""
    low_w, high_w = modelled_power_w(machine["threads"], machine["memory_bytes"], utilisation)
    middle_w = math.sqrt(low_w * high_w)
    return Figure(
        value=middle_w,
        unit="W",
        basis="derived",
        source="Cloud Carbon Footprint coefficients and CodeCarbon's memory power",
        date=date,
        spread=high_w / middle_w - 1,
    )


def _gemm_curves(merged: list[dict[str, Any]], date: str) -> tuple[Any, ...]:
    linear = grouped(of_kind(merged, "linear"), "precision", "threads")
    orthogonal = grouped(of_kind(merged, "orthogonalise"), "precision", "threads")
    return (
        *(fit_linear(group, source=SOURCE, date=date) for group in linear.values()),
        *(fit_orthogonalise(group, source=SOURCE, date=date) for group in orthogonal.values()),
    )


def _roofs(merged: list[dict[str, Any]], measured: _Measured) -> dict[str, Figure]:
    """Per precision the best rate seen in any product, large or in a chain of layers."""
    best: dict[str, float] = {}
    for row in of_kind(merged, "roof"):
        rate = 2.0 * row["size"] ** 3 / row["time_s"]
        best[row["precision"]] = max(best.get(row["precision"], 0.0), rate)
    for row in of_kind(merged, "linear"):
        flop = 4.0 * row["rows"] * row["inputs"] * row["outputs"]
        rate = max(flop / row["forward_s"], 3 * flop / row["training_s"])
        best[row["precision"]] = max(best.get(row["precision"], 0.0), rate)
    return {precision: measured.figure(rate, "FLOP/s") for precision, rate in best.items()}


def _links(merged: list[dict[str, Any]], measured: _Measured) -> tuple[Link, ...]:
    """Latency from the smallest message, bandwidth from the largest: an all-reduce of two
    processes moves its size once each way."""
    rows = sorted(of_kind(merged, "all_reduce"), key=lambda row: float(row["bytes"]))
    if len(rows) < 2:
        return ()
    latency_s = rows[0]["time_s"]
    moving_s = max(rows[-1]["time_s"] - latency_s, 1e-9)
    return (
        Link(
            name=str(rows[0]["backend"]),
            latency_s=measured.figure(latency_s, "s"),
            bandwidth_bytes_per_s=measured.figure(rows[-1]["bytes"] / moving_s, "B/s"),
        ),
    )


def _scalars(merged: list[dict[str, Any]], measured: _Measured) -> dict[str, Figure]:
    scalars: dict[str, Figure] = {}
    starts = of_kind(merged, "startup")
    for name, source in (("start_s", "ready_s"), ("first_step_s", "first_step_s")):
        if starts:
            scalars[name] = measured.figure(min(float(row[source]) for row in starts), "s")
    for row in of_kind(merged, "heap"):
        scalars["base_memory_bytes"] = measured.figure(row["base_memory_bytes"], "B")
        scalars[f"heap_factor_{row['level']}"] = measured.figure(heap_factor(row), "1")
    for row in of_kind(merged, "compiler"):
        scalars["compiler_available"] = measured.figure(float(row["available"]), "1")
    exchanges = of_kind(merged, "all_reduce")
    if len(exchanges) > 1:
        path = fit_socket_path(exchanges)
        scalars[MESSAGE_SCALAR] = measured.figure(path.message_s, "s")
        scalars[RATE_SCALAR] = measured.figure(path.bytes_per_s, "B/s")
    for row in of_kind(merged, "disk"):
        scalars["disk_bytes_per_s"] = measured.figure(row["bytes"] / row["time_s"], "B/s")
    return scalars


def _conditions(merged: list[dict[str, Any]], machine: Row) -> dict[str, float | str | bool | None]:
    """How undisturbed the measurement was: the share of timings during most of whose
    repetitions other processes wanted the cores, and what could not be measured."""
    timed = [row["clean_fraction"] for row in merged if "clean_fraction" in row]
    disturbed = sum(fraction < MOSTLY_CLEAN for fraction in timed)
    return {
        "disturbed_fraction": disturbed / len(timed) if timed else None,
        "failed": ", ".join(str(row["what"]) for row in of_kind(merged, "failed")),
        "cpu_capability": str(machine.get("cpu_capability")),
        "architecture": str(machine.get("architecture")),
        "system": str(machine.get("system")),
    }


def _only(rows: list[Row], kind: str) -> Row:
    if not rows:
        raise InputError(
            f"the rows hold no '{kind}'",
            at="calibration rows",
            help="let the probe run to its end",
        )
    return rows[0]
