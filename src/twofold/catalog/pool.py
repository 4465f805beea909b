"""A pool from `NAME:COUNT`: so many machines, or so many accelerators in their usual machines.

`azure-nd-h200-v5:64` is 64 machines; `h200-sxm:64` is 64 devices in eight machines of eight.
Devices that do not fill a machine make one partial machine (`h100-sxm:4`) or are rounded up to
whole ones (`h100-sxm:12` is two machines): `remarks` says so. Price, grid, PUE, water, failures
and preemptions are filled in where the catalog knows them and are None where it does not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Literal

from twofold.catalog.form import Candidate, Entry, merge
from twofold.catalog.hardware import build_node, take_part
from twofold.catalog.local import LOCAL, local_pool
from twofold.catalog.lookup import accelerator_entry, machine_entry, node_entry
from twofold.catalog.places import facility, grid, resolve_region
from twofold.catalog.prices import Term, is_stale, machine_price
from twofold.catalog.reliability import preemption_rate
from twofold.errors import InputError
from twofold.figure import Figure
from twofold.fleet import Fleet, Node, Pool
from twofold.units import parse_count

Figures = Mapping[str, tuple[Candidate, ...]]
_COUNT = re.compile(r"^\d+[kM]?$")
Counted = Literal["named", "machines", "devices"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSpec:
    """What is asked for: `count` of the named thing, unless `counts` says what is counted.

    The figures are the asker's own; what is None is looked up in the catalog.
    """

    name: str
    count: int = 1
    counts: Counted = "named"
    label: str | None = None
    region: str | None = None
    term: Term = "on-demand"
    usd_per_machine_hour: Figure | None = None
    usd_per_device_hour: Figure | None = None
    grid_kgco2e_per_kwh: Figure | None = None
    pue: Figure | None = None
    water_l_per_kwh: Figure | None = None
    preemptions_per_hour: Figure | None = None
    cpu_cores: Figure | None = None
    accelerator_figures: Figures = field(default_factory=dict)
    machine_figures: Figures = field(default_factory=dict)


def parse_pool(text: str) -> tuple[str, int]:
    """`"h100-sxm:64"` -> ("h100-sxm", 64); without a count it is 1. InputError: not a count."""
    name, colon, number = text.rpartition(":")
    if not colon:
        return text, 1
    if not name or not _COUNT.match(number) or parse_count(number) < 1:
        raise InputError(
            f"'{text}' is not NAME:COUNT with a count of at least 1",
            at="fleet",
            help="write for instance azure-nd-h200-v5:64",
        )
    return name, parse_count(number)


def resolve_pool(text: str, *, region: str | None = None, term: Term = "on-demand") -> Pool:
    """The pool that `NAME:COUNT` means. InputError: unknown name or region, not a count."""
    name, count = parse_pool(text)
    return make_pool(PoolSpec(name=name, count=count, region=region, term=term))


def make_pool(spec: PoolSpec) -> Pool:
    """The pool of a spec. InputError as `resolve_pool`."""
    if spec.name == LOCAL:
        return local_pool(spec)
    if spec.cpu_cores is not None:
        raise InputError(
            f"a quota of cores for '{spec.name}'",
            at=f"pool '{spec.label or spec.name}', cpu_cores",
            help=f'cpu_cores goes with machine = "{LOCAL}"',
        )
    machine = machine_entry(spec.name)
    device = accelerator_entry(machine.settings["accelerator"])
    node = build_node(_with(machine, spec.machine_figures), _with(device, spec.accelerator_figures))
    num_nodes = spec.count
    if counts_devices(spec):
        if spec.count < node.num_accelerators:
            node, num_nodes = take_part(node, spec.count), 1
        else:
            num_nodes = -(-spec.count // node.num_accelerators)
    pue, water = facility(machine.settings.get("provider", ""))
    region = None if spec.region is None else resolve_region(spec.region)
    return Pool(
        name=spec.label or (device.id if counts_devices(spec) else machine.id),
        node=node,
        num_nodes=num_nodes,
        usd_per_node_hour=_price(spec, machine, device, node, region),
        region=region,
        grid_kgco2e_per_kwh=spec.grid_kgco2e_per_kwh or (grid(region) if region else None),
        pue=spec.pue or pue,
        water_l_per_kwh=spec.water_l_per_kwh or water,
        preemptions_per_hour=spec.preemptions_per_hour
        or (preemption_rate(machine.id) if spec.term == "spot" else None),
    )


def counts_devices(spec: PoolSpec) -> bool:
    """Whether devices are counted (an accelerator is named, or it is said) or machines."""
    if spec.name == LOCAL:
        return False
    return spec.counts == "devices" or (spec.counts == "named" and node_entry(spec.name) is None)


def remarks(fleet: Fleet, *, today: date | None = None) -> tuple[str, ...]:
    """What a reader must know of a fleet's figures: stale prices, what is assumed or unknown."""
    day = today or date.today()
    told = []
    for pool in fleet.pools:
        price = pool.usd_per_node_hour
        if price is not None and is_stale(price, day):
            told.append(f"{pool.name}: the price is of {price.date}, more than 30 days old")
        assumed = [key for key, figure in pool_figures(pool).items() if _is_weak(figure)]
        if assumed:
            told.append(f"{pool.name}: assumed or announced: " + ", ".join(assumed))
        unknown = [key for key, figure in pool_figures(pool).items() if figure is None]
        if unknown:
            told.append(f"{pool.name}: unknown: " + ", ".join(unknown))
    return tuple(told)


def rounding_remark(spec: PoolSpec, pool: Pool) -> str | None:
    """Says that more devices were taken than asked for, because machines come whole."""
    if not counts_devices(spec) or pool.num_devices == spec.count:
        return None
    return (
        f"{pool.name}: {spec.count} devices asked for, {pool.num_devices} taken: "
        f"{pool.num_nodes} whole machines of {pool.node.num_accelerators}"
    )


def pool_figures(pool: Pool) -> dict[str, Figure | None]:
    """Every figure of a pool by name, None where it is unknown."""
    node, device = pool.node, pool.node.accelerator
    return {
        **{f"flop_per_s.{key}": rate for key, rate in device.flop_per_s.items()},
        "memory.usable_bytes": device.memory.usable_bytes,
        "memory.bandwidth_bytes_per_s": device.memory.bandwidth_bytes_per_s,
        "power.idle_w": device.power_idle_w,
        "power.max_w": device.power_max_w,
        "failures_per_hour": device.failures_per_hour,
        "embodied_kgco2e": device.embodied_kgco2e,
        **{f"{link.scope}.bandwidth": link.bandwidth_bytes_per_s for link in node.links},
        **{f"{link.scope}.latency": link.latency_s for link in node.links},
        "node.power.overhead_w": node.power_overhead_w,
        "node.embodied_kgco2e": node.embodied_kgco2e,
        "usd_per_node_hour": pool.usd_per_node_hour,
        "grid_kgco2e_per_kwh": pool.grid_kgco2e_per_kwh,
        "pue": pool.pue,
        "water_l_per_kwh": pool.water_l_per_kwh,
    }


def _price(
    spec: PoolSpec, machine: Entry, device: Entry, node: Node, region: str | None
) -> Figure | None:
    if spec.usd_per_machine_hour is not None:
        return spec.usd_per_machine_hour
    own = spec.usd_per_device_hour
    if own is not None:
        return Figure(
            value=own.value * node.num_accelerators,
            unit="USD/h",
            basis=own.basis,
            source=f"{node.num_accelerators} x {own.source}",
            date=own.date,
        )
    return machine_price(
        machine.id, device.id, node.num_accelerators, term=spec.term, region=region
    )


def _with(entry: Entry, figures: Figures) -> Entry:
    """The entry with a user's own figures, which win where their basis does."""
    if not figures:
        return entry
    own = Entry(
        kind=entry.kind,
        id=entry.id,
        aliases=(),
        settings={},
        figures=dict(figures),
        origins=tuple({one.origin for found in figures.values() for one in found}),
    )
    return merge(entry, own)


def _is_weak(figure: Figure | None) -> bool:
    return figure is not None and figure.basis in ("assumed", "announced")
