"""Places and their electricity; providers and their facilities.

A grid's figure is operational unless its source says otherwise, an average over a year, and
location based (no certificates). A cloud region whose operator publishes none has that of the
state or country it lies in. Sources differ by 10 % for one place: each says what it counts.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from twofold.catalog import layers
from twofold.catalog.form import check_schema, read_figure, read_sources, read_table
from twofold.errors import InputError
from twofold.figure import Figure

_UNIT = "kgCO2e/kWh"


def grid(region: str) -> Figure:
    """kgCO2e per kWh of a cloud region ("gcp:us-central1", "aws:us-east-1", "eastus"), a country
    ("FRA", "France"), a US state ("US-VA") or "world". InputError: unknown, with the nearest."""
    place = resolve_region(region)
    known = known_grids()
    if place in known:
        return known[place]
    inside = lies_in()[place]
    if inside not in known:
        raise InputError(
            f"'{place}' lies in '{inside}', of which no grid is known",
            at="catalog, grids, lies_in",
            help="name a country, a state, or a place of grids/",
        )
    figure = known[inside]
    return replace(figure, basis="derived", source=f"{place} lies in {inside}: {figure.source}")


def list_regions() -> dict[str, str]:
    """Every place with a grid figure and its name, sorted by id."""
    known = known_grids()
    found = {place: name for place, name in _names().items() if place in known}
    found |= {region: f"in {inside}" for region, inside in lies_in().items()}
    return dict(sorted(found.items()))


def resolve_region(region: str) -> str:
    """The id of a region, whose cloud may be left out where only one has that name."""
    wanted = region.strip().casefold()
    ids = [*known_grids(), *lies_in()]
    exact = [place for place in ids if place.casefold() == wanted]
    if exact:
        return exact[0]
    bare = [place for place in ids if place.casefold().rpartition(":")[2] == wanted]
    named = [p for p, name in _names().items() if name.casefold() == wanted and p in ids]
    countries = [place for place in named if ":" not in place]
    found = list(dict.fromkeys([*bare, *(countries or named)]))
    if len(found) == 1:
        return found[0]
    if found:
        raise InputError(
            f"'{region}' may be any of {', '.join(found)}",
            at="region",
            help="name the one that is meant",
        )
    known = {place.casefold(): place for place in ids}
    known |= {place.casefold().rpartition(":")[2]: place for place in ids}
    known |= {name.casefold(): place for place, name in _names().items()}
    near = [known[key] for key in difflib.get_close_matches(wanted, list(known), n=3, cutoff=0.5)]
    hint = "perhaps " + " or ".join(f"'{one}'" for one in dict.fromkeys(near)) + " is meant; "
    raise InputError(
        f"no grid is known for the region '{region}'",
        at="region",
        help=(hint if near else "") + "or give `grid_kgco2e_per_kwh` in a fleet.toml",
    )


def facility(provider: str) -> tuple[Figure | None, Figure | None]:
    """(PUE, on-site litres of water per kWh) of a provider's data centres, as far as known."""
    pue: Figure | None = None
    water: Figure | None = None
    for origin, _, content in layers.documents("grids"):
        row = _tables(content, "facility", origin).get(provider, {})
        at = f"{origin}, facility.{provider}"
        sources = read_sources(content, origin)
        if "pue" in row:
            pue = read_figure(row["pue"], unit="1", at=f"{at}.pue", sources=sources)
        if "water_l_per_kwh" in row:
            water = read_figure(
                row["water_l_per_kwh"], unit="L/kWh", at=f"{at}.water_l_per_kwh", sources=sources
            )
    return pue, water


def known_grids() -> dict[str, Figure]:
    """kgCO2e per kWh by place; a file nearer to the user replaces one farther off."""
    found: dict[str, Figure] = {}
    for origin, _, content in layers.documents("grids"):
        check_schema(content, origin)
        for place, row in _tables(content, "place", origin).items():
            if "kgco2e_per_kwh" in row:
                found[place] = _grid_figure(row, content, f"{origin}, place.{place}")
    return found


def _grid_figure(row: Mapping[str, Any], content: Mapping[str, Any], at: str) -> Figure:
    return read_figure(
        {
            "value": row["kgco2e_per_kwh"],
            "basis": row.get("basis", content.get("basis", "user")),
            "source": row.get("source", content.get("source", at)),
            "date": row.get("date", content.get("date", "undated")),
        },
        unit=_UNIT,
        at=f"{at}, kgco2e_per_kwh",
    )


def _names() -> dict[str, str]:
    return {
        place: str(row.get("name", place))
        for origin, _, content in layers.documents("grids")
        for place, row in _tables(content, "place", origin).items()
    }


def lies_in() -> dict[str, str]:
    """The state or country in which a cloud region lies."""
    return {
        region: str(inside)
        for origin, _, content in layers.documents("grids")
        for region, inside in read_table(content, "lies_in", origin).items()
    }


def _tables(content: Mapping[str, Any], name: str, origin: str) -> Mapping[str, Any]:
    table = read_table(content, name, origin)
    if not all(isinstance(row, Mapping) for row in table.values()):
        raise InputError(
            f"`{name}` is not a table of tables",
            at=f"{origin}, {name}",
            help='write for instance "DEU" = { kgco2e_per_kwh = 0.38, source = "..." }',
        )
    return table
