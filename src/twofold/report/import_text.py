"""What was seen when a model was imported from a framework's code."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from twofold.sources.coverage import Imported

_MOST_LINES = 12


def import_lines(imported: Imported) -> list[str]:
    """As what it was recognised, and the share of it that was not."""
    if imported.why_chain is None:
        lines = [f"recognised as a transformer, from {imported.framework}: every parallel axis"]
    else:
        lines = [
            f"imported from {imported.framework} as a chain of {imported.model.layers} blocks: "
            "data parallelism, ZeRO and pipelines, blocks priced by their mean",
            f"no transformer for the search: {imported.why_chain}",
        ]
    lines.append(f"traced on {imported.sample}, {imported.num_steps:,} operations")
    lines += [f"assumed: {text}" for text in imported.assumed]
    if imported.unused_parameters:
        lines.append(f"not used by the pass traced: {imported.unused_parameters:,} parameters")
    if not imported.unrecognised:
        lines.append("unrecognised: nothing")
        return lines
    lines.append(
        f"unrecognised: {imported.unrecognised_flop_fraction:.2%} of the FLOP, "
        f"{imported.unrecognised_bytes_fraction:.2%} of the bytes, priced as one pass over operands"
    )
    shown = imported.unrecognised[:_MOST_LINES]
    lines += [
        f"    {one.source} x {one.count}: {one.flop_fraction:.2%} of the FLOP, "
        f"{one.bytes_fraction:.2%} of the bytes"
        for one in shown
    ]
    hidden = len(imported.unrecognised) - len(shown)
    if hidden:
        lines.append(f"    and {hidden} more: --json lists them")
    return lines


def import_mapping(imported: Imported) -> dict[str, Any]:
    """The same as plain data."""
    return {
        "framework": imported.framework,
        "family": imported.family,
        "why_chain": imported.why_chain,
        "sample": imported.sample,
        "operations": imported.num_steps,
        "assumed": list(imported.assumed),
        "unused_parameters": imported.unused_parameters,
        "unrecognised_flop_fraction": imported.unrecognised_flop_fraction,
        "unrecognised_bytes_fraction": imported.unrecognised_bytes_fraction,
        "unrecognised": [asdict(one) for one in imported.unrecognised],
    }
