"""`lint`: the rules a trustworthy catalog keeps. Each one caught a real error in a public table.

Form, units and finite numbers are checked on reading; here is what takes two figures or two
entries to see. A fault of severity "error" fails the tests; a "warning" is worth a look.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from math import isclose, prod
from statistics import median
from typing import Literal

from twofold.catalog import layers
from twofold.catalog.form import Entry
from twofold.catalog.lookup import normalise
from twofold.catalog.places import known_grids, lies_in
from twofold.catalog.prices import all_prices
from twofold.catalog.vocabulary import FIGURE_UNITS, PRECISIONS, EntryKind

Severity = Literal["error", "warning"]

FP8_OVER_BF16 = (1.0, 2.0, 3.75)
"""No gain (TPU v5p, Gaudi 3), the usual doubling, Trainium 3. Anything else is a mix-up."""

_TOLERANCE = 0.03
_GIB_OVER_GB = 2.0**30 / 1e9
_MONTH = re.compile(r"^\d{4}-(0[1-9]|1[0-2])$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One breach of one rule by one entry."""

    rule: str
    entry: str
    message: str
    severity: Severity = "error"


def lint() -> tuple[Fault, ...]:
    """All faults of the catalog as it is merged from the folders now. InputError: a bad form."""
    devices = layers.entries("accelerator")
    nodes = layers.entries("node")
    links = layers.entries("link")
    faults: list[Fault] = []
    for entry in [*devices.values(), *nodes.values(), *links.values()]:
        faults += _check_entry(entry)
    for device in devices.values():
        faults += [*_check_rates(device), *_check_device(device, links)]
    faults += [*_check_siblings(devices), *_check_names(devices, nodes)]
    for node in nodes.values():
        faults += _check_node(node, devices)
    for device in devices.values():
        faults += _check_customary(device, nodes)
    return (*faults, *_check_prices(), *_check_places())


def _check_entry(entry: Entry) -> Iterator[Fault]:
    for key, candidates in entry.figures.items():
        for one in candidates:
            figure = one.figure
            if one.layer == 0 and (figure.basis == "user" or figure.date == "undated"):
                yield Fault(rule="origin", entry=entry.id, message=f"{key} has no source or date")
            if one.product_of:
                product = prod(one.product_of)
                if not isclose(product, figure.value, rel_tol=_TOLERANCE):
                    yield Fault(
                        rule="product",
                        entry=entry.id,
                        message=f"{key} is {figure.value:.4g}, its factors give {product:.4g}",
                    )


def _check_rates(device: Entry) -> Iterator[Fault]:
    bf16, fp8 = (_value(device, f"flop_per_s.{key}") for key in ("bf16", "fp8"))
    if bf16 and fp8 and not any(isclose(fp8 / bf16, r, rel_tol=_TOLERANCE) for r in FP8_OVER_BF16):
        yield Fault(
            rule="fp8-over-bf16",
            entry=device.id,
            message=f"fp8 is {fp8 / bf16:.2f} x bf16, not one of {FP8_OVER_BF16}",
        )
    mxfp8 = _value(device, "flop_per_s.mxfp8")
    if fp8 and mxfp8 and fp8 != mxfp8:
        yield Fault(rule="mxfp8", entry=device.id, message="mxfp8 does not run at the fp8 rate")
    for precision in PRECISIONS:
        peak = _value(device, f"flop_per_s.{precision}")
        achieved = _value(device, f"achieved_flop_per_s.{precision}")
        if peak and achieved and achieved > 1.05 * peak:
            yield Fault(
                rule="above-peak",
                entry=device.id,
                message=f"{precision} was measured at {achieved / peak:.2f} x its peak",
                severity="warning",
            )


def _check_device(device: Entry, links: dict[str, Entry]) -> Iterator[Fault]:
    label, usable = (_value(device, f"memory.{key}_bytes") for key in ("label", "usable"))
    if label and usable and not 0.85 * label <= usable <= 1.005 * _GIB_OVER_GB * label:
        yield Fault(
            rule="usable-memory",
            entry=device.id,
            message=f"usable {usable:.4g} B against a label of {label:.4g}: GB or GiB?",
        )
    idle, most = (_value(device, f"power.{key}") for key in ("idle_w", "max_w"))
    if idle and most and idle >= most:
        yield Fault(rule="idle-power", entry=device.id, message="idle power is not below the most")
    launched = device.settings.get("launched", "2000-01")
    if not _MONTH.match(launched):
        yield Fault(rule="launched", entry=device.id, message=f"'{launched}' is not YYYY-MM")
    yield from _check_links(device, links)


def _check_links(device: Entry, links: dict[str, Entry]) -> Iterator[Fault]:
    for scope in ("scale_up", "scale_out", "host"):
        fabric = device.settings.get(f"{scope}.fabric")
        bandwidth = _value(device, f"{scope}.bandwidth_bytes_per_s")
        if fabric is not None and fabric not in links:
            yield Fault(rule="fabric", entry=device.id, message=f"no link entry '{fabric}'")
        roof = _value(links[fabric], "bandwidth_bytes_per_s") if fabric in links else None
        if bandwidth and roof and bandwidth > 1.02 * roof:
            yield Fault(
                rule="duplex",
                entry=device.id,
                message=f"{scope} {bandwidth:.4g} B/s is above the one-way {roof:.4g} of {fabric}",
            )
    if device.settings.get("scale_up.topology") == "full-mesh":
        total = _value(device, "scale_up.bandwidth_bytes_per_s")
        pair = _value(device, "scale_up.pair_bytes_per_s")
        peers = device.settings.get("scale_up.domain", 1) - 1
        if not total or not pair or not isclose(total, pair * peers, rel_tol=0.02):
            yield Fault(
                rule="full-mesh",
                entry=device.id,
                message="the bandwidth is not that of a pair times the peers",
            )


def _check_siblings(devices: dict[str, Entry]) -> Iterator[Fault]:
    """The sparsity trap: exactly twice the dense rate of another product of the same die."""
    by_die: dict[str, list[Entry]] = defaultdict(list)
    for device in devices.values():
        by_die[device.settings.get("die", "")].append(device)
    for die, siblings in by_die.items():
        for precision in PRECISIONS if die else ():
            rates = {one.id: _value(one, f"flop_per_s.{precision}") for one in siblings}
            for name, rate in rates.items():
                for other, dense in rates.items():
                    if rate and dense and isclose(rate, 2 * dense, rel_tol=0.002):
                        yield Fault(
                            rule="sparsity",
                            entry=name,
                            message=f"{precision} is exactly twice that of '{other}'",
                        )


def _check_names(devices: dict[str, Entry], nodes: dict[str, Entry]) -> Iterator[Fault]:
    counted = Counter(
        known
        for entry in [*devices.values(), *nodes.values()]
        for known in {normalise(name) for name in (entry.id, *entry.aliases)}
    )
    for name, count in counted.items():
        if count > 1:
            yield Fault(rule="names", entry=name, message=f"{count} entries have this name")


def _check_node(node: Entry, devices: dict[str, Entry]) -> Iterator[Fault]:
    device = devices.get(node.settings.get("accelerator", ""))
    if device is None:
        yield Fault(rule="accelerator", entry=node.id, message="its accelerator is no entry")
        return
    rated, most = _value(node, "power.rated_w"), _value(device, "power.max_w")
    if rated and most and rated < most * node.settings.get("devices", 1):
        yield Fault(
            rule="rated-power", entry=node.id, message="less than its accelerators may draw"
        )


def _check_customary(device: Entry, nodes: dict[str, Entry]) -> Iterator[Fault]:
    name = device.settings.get("node")
    if name is None:
        return
    node = nodes.get(name)
    if node is None or node.settings.get("accelerator") != device.id:
        yield Fault(rule="customary", entry=device.id, message=f"'{name}' is no machine of it")
    elif node.settings.get("devices", 1) != device.settings.get("node_devices", 1):
        yield Fault(rule="customary", entry=device.id, message=f"'{name}' has another count")


def _check_prices() -> Iterator[Fault]:
    prices = [price for price in all_prices() if price.usd_per_hour.value > 0]
    by_device = defaultdict(list)
    regions = defaultdict(set)
    for price in prices:
        by_device[price.accelerator].append(price.usd_per_hour.value / price.devices)
        regions[(price.provider, price.item, price.usd_per_hour.value)].add(price.region)
    for price in prices:
        usual = median(by_device[price.accelerator])
        each = price.usd_per_hour.value / price.devices
        spread = regions[(price.provider, price.item, price.usd_per_hour.value)]
        if each > 20 * usual or len(spread) > 3:
            yield Fault(
                rule="sentinel-price",
                entry=f"{price.provider} {price.item}",
                message=f"{each:.4g} USD/h per device in {len(spread)} regions, median {usual:.4g}",
            )


def _check_places() -> Iterator[Fault]:
    grids = known_grids()
    for place, figure in grids.items():
        if not 1e-3 <= figure.value <= 1.5:
            yield Fault(rule="grid", entry=place, message=f"{figure.value} kgCO2e/kWh: grams?")
    for region, inside in lies_in().items():
        if inside not in grids:
            yield Fault(rule="place", entry=region, message=f"'{inside}' has no grid")


def _value(entry: Entry, key: str) -> float | None:
    kind: EntryKind = entry.kind
    assert key in FIGURE_UNITS[kind], key
    figure = entry.figure(key)
    return None if figure is None else figure.value
