"""Pools of this machine: `machine = "local"` in a fleet file, or the spec `local:3`.

Each of the machines counted is one process on the calibrated processor, under a quota of
`cpu_cores` where that is stated, with the network port that the file gives it. So several unlike
machines are planned for, and run, on one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twofold.catalog.form import Candidate
from twofold.catalog.places import grid, resolve_region
from twofold.errors import InputError
from twofold.figure import Figure
from twofold.fleet import Accelerator, Fleet, Link, Node, Pool
from twofold.workload.text import cache_folder

if TYPE_CHECKING:
    from twofold.catalog.pool import PoolSpec

LOCAL = "local"
_DEVICE_KEYS = ("memory.usable_bytes", "power.idle_w", "power.max_w")
_LINK_KEYS = ("scale_out.bandwidth_bytes_per_s", "scale_out.latency_s")


def local_pool(spec: PoolSpec, calibration: Path | None = None) -> Pool:
    """The pool of a spec that names this machine. InputError: it was never calibrated, or a
    figure is given that it does not take."""
    path = calibration or cache_folder() / "calibration.json"
    measured = _calibrated_pool(path)
    _check_keys(spec.accelerator_figures, _DEVICE_KEYS, "accelerator_figures", spec)
    _check_keys(spec.machine_figures, _LINK_KEYS, "machine_figures", spec)
    device = _device(measured.node.accelerator, spec.accelerator_figures)
    cores = spec.cpu_cores
    if cores is not None and not 0 < cores.value <= device.threads:
        raise InputError(
            f"{cores.value:g} cores of the {device.threads} of '{device.name}'",
            at=f"pool '{spec.label or LOCAL}', cpu_cores",
            help=f"use more than 0 and at most {device.threads}",
        )
    region = None if spec.region is None else resolve_region(spec.region)
    return Pool(
        name=spec.label or LOCAL,
        node=replace(
            measured.node, accelerator=device, links=_links(measured.node, spec.machine_figures)
        ),
        num_nodes=spec.count,
        usd_per_node_hour=spec.usd_per_machine_hour or spec.usd_per_device_hour,
        region=region,
        grid_kgco2e_per_kwh=spec.grid_kgco2e_per_kwh or (grid(region) if region else None),
        pue=spec.pue,
        water_l_per_kwh=spec.water_l_per_kwh,
        preemptions_per_hour=spec.preemptions_per_hour,
        cpu_cores=cores,
    )


def _calibrated_pool(path: Path) -> Pool:
    from twofold.document import from_mapping, read_json  # brings numpy, which names do not need

    if not path.is_file():
        raise InputError(
            "this machine is not calibrated", at=str(path), help="run `twofold calibrate` first"
        )
    content = read_json(path, dict[str, Any])
    if "fleet" not in content:
        raise InputError(
            "the file holds no fleet", at=str(path), help="run `twofold calibrate` again"
        )
    return from_mapping(content["fleet"], Fleet, at=f"{path}, fleet").pools[0]


def _check_keys(
    figures: Mapping[str, object], known: tuple[str, ...], table: str, spec: PoolSpec
) -> None:
    for key in figures:
        if key not in known:
            raise InputError(
                f"'{key}' of this machine is measured, not stated",
                at=f"pool '{spec.label or LOCAL}', {table}",
                help="use " + ", ".join(known),
            )


def _device(device: Accelerator, figures: Mapping[str, tuple[Candidate, ...]]) -> Accelerator:
    memory = figures.get("memory.usable_bytes")
    return replace(
        device,
        memory=replace(device.memory, usable_bytes=memory[0].figure) if memory else device.memory,
        power_idle_w=_first(figures, "power.idle_w") or device.power_idle_w,
        power_max_w=_first(figures, "power.max_w") or device.power_max_w,
    )


def _links(node: Node, figures: Mapping[str, tuple[Candidate, ...]]) -> tuple[Link, ...]:
    """What was measured between two processes here, and the port that is stated; where none is,
    that between two processes is the port."""
    measured = next((link for link in node.links if link.name == "gloo"), None)
    rate, latency = (_first(figures, key) for key in _LINK_KEYS)
    if rate is None and measured is not None:
        return (*node.links, replace(measured, scope="scale-out", name="processes"))
    if rate is None:
        return node.links
    return (*node.links, _port(rate, latency))


def _port(rate: Figure, latency: Figure | None) -> Link:
    none = Figure(
        value=0.0,
        unit="s",
        basis="assumed",
        source="no latency beyond that between two processes",
        date=rate.date,
    )
    return Link(
        name="port",
        latency_s=latency or none,
        bandwidth_bytes_per_s=rate,
        scope="scale-out",
        fabric="gloo",
    )


def _first(figures: Mapping[str, tuple[Candidate, ...]], key: str) -> Figure | None:
    candidates = figures.get(key)
    return candidates[0].figure if candidates else None
