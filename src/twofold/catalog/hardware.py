"""Entries made into the `Accelerator` and `Node` that the physics knows.

A node takes its links from the accelerator's file, unless its own file says otherwise. The
latency of a link is that of its fabric (`links/`), unless a file gives it for the machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from twofold.catalog import layers
from twofold.catalog.form import Entry
from twofold.catalog.lookup import accelerator_entry, machine_entry
from twofold.catalog.vocabulary import PRECISIONS
from twofold.errors import InputError
from twofold.figure import Figure
from twofold.fleet import Accelerator, Link, LinkScope, MemoryTier, Node

_SCOPES: dict[str, LinkScope] = {
    "scale_up": "scale-up",
    "scale_out": "scale-out",
    "host": "host",
}


def find_accelerator(name: str) -> Accelerator:
    """The accelerator of that id or alias. InputError: unknown, with the nearest ids."""
    return build_accelerator(accelerator_entry(name))


def find_node(name: str) -> Node:
    """The machine of that name; an accelerator's name gives its customary machine.

    InputError: unknown, with the nearest names; or a figure no machine can do without is missing.
    """
    return build_node(machine_entry(name))


def build_accelerator(entry: Entry) -> Accelerator:
    settings = entry.settings
    if "kind" not in settings:
        raise InputError(
            f"the accelerator '{entry.id}' has no kind",
            at=f"{entry.origins[0]}, kind",
            help="write kind = cpu, gpu, tpu, npu or fpga; or correct the id of the overlay",
        )
    return Accelerator(
        name=entry.id,
        kind=settings["kind"],
        memory=MemoryTier(
            name="memory",
            usable_bytes=_needed(entry, "memory.usable_bytes"),
            bandwidth_bytes_per_s=entry.figure("memory.bandwidth_bytes_per_s"),
        ),
        flop_per_s={
            precision: rate
            for precision in PRECISIONS
            if (rate := entry.figure(f"flop_per_s.{precision}")) is not None
        },
        threads=settings.get("threads", 1),
        power_idle_w=entry.figure("power.idle_w"),
        power_max_w=entry.figure("power.max_w"),
        vendor=settings.get("vendor", ""),
        die=settings.get("die"),
        launched=settings.get("launched"),
        failures_per_hour=entry.figure("failures_per_hour"),
        embodied_kgco2e=entry.figure("embodied_kgco2e"),
    )


def build_node(node: Entry, device: Entry | None = None) -> Node:
    """The node of a machine's entry; `device` replaces the accelerator's entry it names."""
    if "accelerator" not in node.settings:
        raise InputError(
            f"the machine '{node.id}' names no accelerator",
            at=f"{node.origins[0]}, accelerator",
            help='write for instance accelerator = "h100-sxm"; or correct the overlay\'s id',
        )
    device = device or accelerator_entry(node.settings["accelerator"])
    devices = node.settings.get("devices", 1)
    links = tuple(
        link for scope in _SCOPES if (link := _link(scope, node, device, devices)) is not None
    )
    return Node(
        name=node.id,
        accelerator=build_accelerator(device),
        num_accelerators=devices,
        host_memory=_host_memory(node),
        links=links,
        power_overhead_w=node.figure("power.overhead_w"),
        embodied_kgco2e=node.figure("embodied_kgco2e"),
    )


def take_part(node: Node, num_accelerators: int) -> Node:
    """Fewer devices of one machine: its share of host memory, power and embodied carbon."""
    share = num_accelerators / node.num_accelerators
    note = f"{num_accelerators} of {node.num_accelerators} devices"
    return replace(
        node,
        num_accelerators=num_accelerators,
        host_memory=tuple(
            replace(tier, usable_bytes=_scaled(tier.usable_bytes, share, note))
            for tier in node.host_memory
        ),
        links=tuple(
            replace(link, domain=num_accelerators)
            if link.scope == "scale-up" and link.domain == node.num_accelerators
            else link
            for link in node.links
            if link.scope != "scale-up" or num_accelerators > 1 or _reaches_out(link, node)
        ),
        power_overhead_w=_scaled_or_none(node.power_overhead_w, share, note),
        embodied_kgco2e=_scaled_or_none(node.embodied_kgco2e, share, note),
    )


def _reaches_out(link: Link, node: Node) -> bool:
    return link.domain > node.num_accelerators


def _link(scope: str, node: Entry, device: Entry, devices: int) -> Link | None:
    """The link of that scope, or None where its bandwidth is unknown or nothing is joined."""

    def figure(key: str) -> Figure | None:
        return node.figure(f"{scope}.{key}") or device.figure(f"{scope}.{key}")

    settings = _link_settings(scope, device.settings, node.settings)
    bandwidth = figure("bandwidth_bytes_per_s")
    if bandwidth is None:
        return None
    domain = 0
    if scope == "scale_up":
        domain = _domain(settings.get("domain", devices), device, devices)
        if domain < 2:
            return None
    fabric = settings.get("fabric", "")
    latency = figure("latency_s") or _fabric_latency(fabric)
    if latency is None:
        raise InputError(
            f"the latency of the {_SCOPES[scope]} link of '{node.id}' is unknown",
            at=f"{device.origins[-1]}, {scope}.latency_s",
            help="write it, or name a fabric of the catalog's links/",
        )
    return Link(
        name=fabric or _SCOPES[scope],
        latency_s=latency,
        bandwidth_bytes_per_s=bandwidth,
        scope=_SCOPES[scope],
        domain=domain,
        topology=settings.get("topology", "switched"),
        fabric=fabric,
        pair_bytes_per_s=figure("pair_bytes_per_s"),
        in_network_reduction=settings.get("in_network_reduction", False),
    )


def _domain(domain: int, device: Entry, devices: int) -> int:
    """A fabric that ends at the machine joins the devices in it; one of a rack or pod joins all
    it ever joins, however few of them this machine holds."""
    customary = device.settings.get("node_devices", devices)
    return domain if domain > customary else min(domain, devices)


def _link_settings(scope: str, *layers_: Mapping[str, Any]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for settings in layers_:
        merged |= {
            key.removeprefix(f"{scope}."): value
            for key, value in settings.items()
            if key.startswith(f"{scope}.")
        }
    return merged


def _fabric_latency(fabric: str) -> Figure | None:
    entry = layers.entry("link", fabric) if fabric else None
    return None if entry is None else entry.figure("latency_s")


def _host_memory(node: Entry) -> tuple[MemoryTier, ...]:
    usable = node.figure("host_memory.usable_bytes")
    if usable is None:
        return ()
    bandwidth = node.figure("host_memory.bandwidth_bytes_per_s")
    return (MemoryTier(name="host", usable_bytes=usable, bandwidth_bytes_per_s=bandwidth),)


def _needed(entry: Entry, key: str) -> Figure:
    figure = entry.figure(key)
    if figure is None:
        raise InputError(
            f"`{key}` of '{entry.id}' is unknown",
            at=entry.origins[-1],
            help=f"write it in a TOML of catalog.d/, or measure it: [figures] {key} = ...",
        )
    return figure


def _scaled(figure: Figure, share: float, note: str) -> Figure:
    return replace(
        figure,
        value=figure.value * share,
        basis="derived" if figure.basis not in ("assumed", "announced") else figure.basis,
        source=f"{note} of: {figure.source}",
    )


def _scaled_or_none(figure: Figure | None, share: float, note: str) -> Figure | None:
    return None if figure is None else _scaled(figure, share, note)
