"""What the catalog and the model table hold, as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from twofold.catalog import Description, FigureOrigin, pool_figures, remarks
from twofold.figure import Figure
from twofold.fleet import Fleet
from twofold.report.table import aligned
from twofold.units import format_bytes, format_quantity


def listing_text(entries: Sequence[Mapping[str, Any]]) -> str:
    """One line an entry."""
    rows = [
        (str(row["kind"]), str(row["id"]), str(row.get("vendor", "")), str(row.get("summary", "")))
        for row in entries
    ]
    return "\n".join(
        [*aligned(rows, left=(0, 1, 2, 3)), f"next: twofold catalog show {rows[0][1]} --why"]
        if rows
        else ["nothing"]
    )


def description_text(description: Description, *, why: bool) -> str:
    """The figures of one thing; with `why` the origin of each and what it beat."""
    also = f" (also {', '.join(description.aliases)})" if description.aliases else ""
    lines = [f"{description.kind} {description.id}{also}"]
    lines += [f"  {key}: {value}" for key, value in description.settings.items()]
    lines.append("")
    known = [origin for origin in description.figures if origin.figure is not None]
    if why:
        lines += [line for origin in known for line in _origin_lines(origin)]
    else:
        lines += aligned(
            [(origin.key, figure_text(origin.figure), _basis(origin.figure)) for origin in known],
            left=(0, 2),
        )
    for price in description.prices:
        figure = price.usd_per_hour
        lines.append(
            f"price: {figure.value:.4g} USD/h for {price.devices} ({price.provider}, {price.term}, "
            f"{price.region}, {figure.date})"
        )
    unknown = [origin.key for origin in description.figures if origin.figure is None]
    if unknown:
        lines += ["", "unknown: " + ", ".join(unknown)]
    if not why:
        lines.append(f"next: twofold catalog show {description.id} --why")
    return "\n".join(lines)


def fleet_text(fleet: Fleet) -> str:
    """Every figure of every pool with its basis, then what to beware of."""
    lines = []
    for pool in fleet.pools:
        node = pool.node
        lines.append(
            f"{pool.name}: {pool.num_devices:,} devices ({pool.num_nodes:,} x {node.name} of "
            f"{node.num_accelerators} x {node.accelerator.name})"
        )
        lines += [
            f"  {link.scope}: {link.name}, {link.topology}"
            + (f", joins {link.domain} devices" if link.domain else "")
            for link in node.links
        ]
        lines += aligned(
            [
                (
                    f"  {key}",
                    figure_text(figure),
                    _basis(figure),
                    "" if figure is None else figure.date,
                )
                for key, figure in pool_figures(pool).items()
            ],
            left=(0, 2, 3),
        )
        lines.append("")
    lines += [f"note: {remark}" for remark in remarks(fleet)]
    first = fleet.pools[0]
    lines.append(f"next: twofold catalog show {first.node.accelerator.name} --why")
    return "\n".join(lines)


def model_text(described: Mapping[str, Any]) -> str:
    """Counts of a model and its operators."""
    name, seq_len = described["name"], described["seq_len"]
    rows = [
        ("parameters", f"{described['parameters']:,}"),
        ("active per token", f"{described['active_parameters']:,}"),
        ("without embeddings", f"{described['non_embedding_parameters']:,}"),
        (f"training FLOP per token at {seq_len:,}", _flop(described["training_flop_per_token"])),
        (f"inference FLOP per token at {seq_len:,}", _flop(described["inference_flop_per_token"])),
    ]
    if described["kv_bytes_per_token"] is not None:
        rows.append(("keys and values per token", format_bytes(described["kv_bytes_per_token"])))
    shape = ", ".join(f"{key} {value}" for key, value in described["shape"].items())
    table = [("operator", "kind", "in", "times", "parameters", "of the FLOP")]
    table += [
        (
            row["name"], row["kind"], row["segment"], f"{row['repeat']}", f"{row['parameters']:,}",
            f"{row['flop_fraction']:.1%}",
        )
        for row in described["rows"]
    ]  # fmt: skip
    lines = [name, *aligned(rows)]
    lines += [f"shape: {shape}"] if shape else []
    lines += ["", *aligned(table, left=(0, 1, 2)), ""]
    lines.append(
        f"next: twofold plan {described.get('plan_as', name)} --fleet dgx-h100:8 --tokens 100B "
        "--global-batch 512"
    )
    return "\n".join(lines)


def figure_text(figure: Figure | None) -> str:
    """Value and unit as people say them; `unknown` where there is none."""
    if figure is None:
        return "unknown"
    if figure.unit == "B":
        return format_bytes(figure.value)
    if figure.unit in ("FLOP/s", "B/s", "W"):
        return format_quantity(figure.value, figure.unit)
    return f"{figure.value:.4g} {figure.unit}" if figure.unit != "1" else f"{figure.value:.4g}"


def _origin_lines(origin: FigureOrigin) -> list[str]:
    assert origin.figure is not None
    figure = origin.figure
    lines = [
        f"{origin.key} = {figure_text(figure)}",
        f"    {figure.basis}, {figure.date}: {figure.source}  [{origin.origin}]",
    ]
    lines += [
        f"    beaten: {figure_text(loser.figure)} ({loser.figure.basis}, {loser.figure.date}: "
        f"{loser.figure.source})  [{loser.origin}]"
        for loser in origin.losers
    ]
    return lines


def _basis(figure: Figure | None) -> str:
    return "" if figure is None else figure.basis


def _flop(value: float) -> str:
    return format_quantity(value, "FLOP")
