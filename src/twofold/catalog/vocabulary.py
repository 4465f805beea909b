"""The closed vocabulary of catalog entries: which figures there are, their units, which words.

A key that is not here is a spelling mistake, and refused as one.
"""

from __future__ import annotations

from typing import Literal

EntryKind = Literal["accelerator", "node", "link"]
FOLDERS: dict[str, EntryKind] = {"accelerators": "accelerator", "nodes": "node", "links": "link"}
SCHEMA_VERSION = 1

PRECISIONS = ("fp32", "tf32", "bf16", "fp16", "fp8", "mxfp8", "mxfp4", "nvfp4", "int8")

_LINK_FIGURES = {
    "latency_s": "s",
    "bandwidth_bytes_per_s": "B/s",
    "pair_bytes_per_s": "B/s",
}
_LINKS = {
    f"{scope}.{key}": unit
    for scope in ("scale_up", "scale_out", "host")
    for key, unit in _LINK_FIGURES.items()
}
FIGURE_UNITS: dict[EntryKind, dict[str, str]] = {
    "accelerator": {
        **{f"flop_per_s.{precision}": "FLOP/s" for precision in PRECISIONS},
        **{f"achieved_flop_per_s.{precision}": "FLOP/s" for precision in PRECISIONS},
        "memory.label_bytes": "B",
        "memory.usable_bytes": "B",
        "memory.bandwidth_bytes_per_s": "B/s",
        "memory.achieved_bytes_per_s": "B/s",
        "power.idle_w": "W",
        "power.max_w": "W",
        "failures_per_hour": "1/h",
        "embodied_kgco2e": "kgCO2e",
        **_LINKS,
    },
    "node": {
        "host_memory.usable_bytes": "B",
        "host_memory.bandwidth_bytes_per_s": "B/s",
        "power.overhead_w": "W",
        "power.rated_w": "W",
        "embodied_kgco2e": "kgCO2e",
        **_LINKS,
    },
    "link": dict(_LINK_FIGURES),
}
"""The closed vocabulary: every figure key an entry may have, with its unit."""

_LINK_SETTINGS: dict[str, type] = {
    "fabric": str,
    "topology": str,
    "domain": int,
    "in_network_reduction": bool,
}
_LINK_SETTING_KEYS = {
    f"{scope}.{key}": form
    for scope in ("scale_up", "scale_out", "host")
    for key, form in _LINK_SETTINGS.items()
}
SETTING_TYPES: dict[EntryKind, dict[str, type]] = {
    "accelerator": {
        "kind": str,
        "vendor": str,
        "die": str,
        "launched": str,
        "status": str,
        "note": str,
        "threads": int,
        "node": str,
        "node_devices": int,
        **_LINK_SETTING_KEYS,
    },
    "node": {
        "accelerator": str,
        "devices": int,
        "provider": str,
        "machine": str,
        "status": str,
        "note": str,
        **_LINK_SETTING_KEYS,
    },
    "link": {"title": str, "note": str},
}

CHOICES: dict[str, tuple[str, ...]] = {
    "kind": ("cpu", "gpu", "tpu", "npu", "fpga"),
    "status": ("announced", "available", "retired"),
    "topology": ("switched", "full-mesh", "torus2d", "torus3d", "tree"),
}
ENVELOPE = ("schema", "entry", "id", "aliases", "figures", "sources")
FIGURE_ATTRIBUTES = ("value", "unit", "basis", "source", "date", "spread", "note", "product_of")
