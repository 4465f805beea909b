"""What hardware costs: rent by the hour, purchase, electricity. Every price has a date.

A machine type has its list price. Where none is known, the market price of its accelerator
stands in, and says so in its source; where there is none of either, the price is unknown. The
terms are never mixed: a spot price does not stand in for an on-demand one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date, timedelta
from statistics import median
from typing import Any, Literal, get_args

from twofold.catalog import layers
from twofold.catalog.form import (
    check_schema,
    read_figure,
    read_rows,
    read_sources,
    unknown_key,
)
from twofold.errors import InputError
from twofold.figure import PRECEDENCE, Figure

Term = Literal["on-demand", "spot", "reserved", "capacity-block"]
STALE_AFTER = timedelta(days=30)
MARKET = "market"
EVERYWHERE = ("all", "world")

_PRICE_KEYS = (
    "item", "accelerator", "devices", "machine", "term", "region", "as_of",
    "usd_per_hour", "usd", "usd_per_kwh", "basis", "source", "note",
)  # fmt: skip
_DATE = re.compile(r"^(\d{4})(?:-(\d{2})(?:-(\d{2}))?)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """One price of one thing: `usd` per hour of an item with so many accelerators."""

    provider: str
    item: str
    accelerator: str
    devices: int
    machine: str | None
    term: Term
    region: str
    usd_per_hour: Figure
    layer: int


def machine_price(
    machine: str, accelerator: str, devices: int, *, term: Term, region: str | None
) -> Figure | None:
    """USD per hour of a machine with so many devices, or None where nobody says.

    The list price of that machine, of that region if there is one, the newest first; else the
    market price of its accelerators.
    """
    listed = [price for price in all_prices() if price.machine == machine and price.term == term]
    if listed:
        best = min(listed, key=lambda price: _order(price, region))
        per_device = best.usd_per_hour.value / best.devices
        source = best.usd_per_hour.source
        if region and _region_rank(best, region) == 2:
            source += f"; price of {best.region}, none is known for {region}"
        if devices != best.devices:
            source += f"; {devices} of {best.devices} devices"
        return replace(best.usd_per_hour, value=per_device * devices, source=source)
    per_device_hour = market_price(accelerator, term=term)
    if per_device_hour is None:
        return None
    return replace(
        per_device_hour,
        value=per_device_hour.value * devices,
        source=f"no list price of '{machine}': {devices} x {per_device_hour.source}",
    )


def market_price(accelerator: str, *, term: Term = "on-demand") -> Figure | None:
    """USD per hour of one accelerator: a published market median if there is one, else the
    median over providers of the newest price of each. Basis published, dated by the oldest."""
    newest: dict[str, Price] = {}
    for price in all_prices():
        if price.accelerator != accelerator or price.term != term:
            continue
        known = newest.get(price.provider)
        if known is None or _trust(price) < _trust(known):
            newest[price.provider] = price
    if not newest:
        return None
    if MARKET in newest:
        newest = {MARKET: newest[MARKET]}
    each = {name: price.usd_per_hour.value / price.devices for name, price in newest.items()}
    told = ", ".join(f"{name} {value:.2f}" for name, value in sorted(each.items()))
    bases = [price.usd_per_hour.basis for price in newest.values()]
    return Figure(
        value=median(each.values()),
        unit="USD/h",
        basis=max(bases, key=PRECEDENCE.index),
        source=f"market price per accelerator, {term}: median of {told} USD/h",
        date=min(price.usd_per_hour.date for price in newest.values()),
    )


def purchase_price(accelerator: str) -> Figure | None:
    """USD to buy one accelerator (a rack's price per device), or None where unknown."""
    found = [
        read_figure(_as_figure(row, "usd"), unit="USD", at=at, sources=sources)
        for row, at, sources in _rows("purchase")
        if row.get("accelerator") == accelerator
    ]
    return min(found, key=lambda figure: PRECEDENCE.index(figure.basis)) if found else None


def electricity_price(place: str) -> Figure | None:
    """USD per kWh of electricity in a country or state, or None where unknown."""
    for row, at, sources in _rows("electricity"):
        if str(row.get("region", "")).upper() == place.upper():
            return read_figure(
                _as_figure(row, "usd_per_kwh"), unit="USD/kWh", at=at, sources=sources
            )
    return None


def is_stale(price: Figure, today: date) -> bool:
    """Whether a price may be more than 30 days old: the earliest day its date allows counts."""
    if price.basis == "user":
        return False
    day = earliest_day(price.date)
    return day is None or today - day > STALE_AFTER


def earliest_day(text: str) -> date | None:
    """`"2026-05"` -> 1 May 2026; None where the text does not begin with a date."""
    match = _DATE.match(text)
    if match is None:
        return None
    try:
        return date(int(match[1]), int(match[2] or 1), int(match[3] or 1))
    except ValueError:
        return None


def all_prices() -> list[Price]:
    """Every rent price of every file, checked."""
    prices = []
    for row, at, sources in _rows("price"):
        term = row.get("term", "on-demand")
        if term not in get_args(Term):
            raise InputError(
                f"'{term}' is not a term", at=f"{at}, term", help="use " + ", ".join(get_args(Term))
            )
        devices = row.get("devices", 1)
        if not isinstance(devices, int) or devices < 1:
            raise InputError("`devices` is not a count", at=f"{at}, devices", help="correct it")
        figure = read_figure(_as_figure(row, "usd_per_hour"), unit="USD/h", at=at, sources=sources)
        prices.append(
            Price(
                provider=row["provider"],
                item=str(row.get("item", row.get("machine", "?"))),
                accelerator=str(row.get("accelerator", "")),
                devices=devices,
                machine=row.get("machine"),
                term=term,
                region=str(row.get("region", EVERYWHERE[0])),
                usd_per_hour=figure,
                layer=row["layer"],
            )
        )
    return prices


def _rows(table: str) -> list[tuple[dict[str, Any], str, dict[str, str]]]:
    """(row, place, sources) of a table over all price files; only dollars are understood."""
    rows = []
    for origin, layer, content in layers.documents("prices"):
        check_schema(content, origin)
        if content.get("currency", "USD") != "USD":
            raise InputError(
                f"the currency '{content['currency']}' is not USD",
                at=f"{origin}, currency",
                help="convert the prices and say so in their source",
            )
        sources = read_sources(content, origin)
        for index, row in enumerate(read_rows(content, table, origin)):
            at = f"{origin}, {table} {index + 1}"
            for key in row:
                if key not in _PRICE_KEYS:
                    raise unknown_key(key, _PRICE_KEYS, at)
            provider = str(content.get("provider", "user"))
            rows.append(({**row, "layer": layer, "provider": provider}, at, sources))
    return rows


def _as_figure(row: Mapping[str, Any], key: str) -> dict[str, Any]:
    figure = {
        "value": row.get(key),
        "basis": row.get("basis", "published"),
        "source": row.get("source"),
        "date": row.get("as_of", "undated"),
    }
    return figure | ({"note": row["note"]} if "note" in row else {})


def _trust(price: Price) -> tuple[int, int, int]:
    day = earliest_day(price.usd_per_hour.date)
    age = -day.toordinal() if day else 0
    return (PRECEDENCE.index(price.usd_per_hour.basis), -price.layer, age)


def _order(price: Price, region: str | None) -> tuple[int, int, int, int]:
    """Which list price is taken: by basis, the user's file, the region, then the newest."""
    basis, layer, age = _trust(price)
    return (basis, layer, _region_rank(price, region), age)


def _region_rank(price: Price, region: str | None) -> int:
    """0 the region asked for (or none asked), 1 a price that holds everywhere, 2 another's."""
    if region is None or price.region == region.rpartition(":")[2]:
        return 0
    return 1 if price.region in EVERYWHERE else 2
