"""`read_fleet`: from what a person typed or wrote to the `Fleet` that is planned on.

A spec is `NAME:COUNT`, the path of a calibration (`.json`), or of a fleet file (`.toml`):

    name = "my lab"
    region = "DEU"                    # of every pool that does not say otherwise

    [[pool]]
    machine = "dgx-h100"              # or accelerator = "rtx-4090": then `count` is of devices
    count = 4
    name = "old hall"                 # all below is optional
    region = "US-VA"
    term = "spot"                     # on-demand, spot, reserved, capacity-block
    usd_per_machine_hour = 25.0       # or usd_per_device_hour
    grid_kgco2e_per_kwh = 0.2
    pue = 1.2
    water_l_per_kwh = 0.3
    preemptions_per_hour = 0.01
    accelerator_figures.memory.usable_bytes = 84e9
    machine_figures.scale_out.bandwidth_bytes_per_s = 25e9

    [[pool]]
    machine = "local"                 # a process on this machine as it was calibrated (`local`),
    cpu_cores = 0.75                  # under a quota of so many cores

    [[link]]                          # between two pools, where it is not their own networks
    between = ["old hall", "local"]   # (`pool_links`)
    bandwidth_bytes_per_s = 1.25e8
    latency_s = 0.03

A bare number is the writer's own figure. Where it comes from elsewhere, write it as in the
catalog: { value = 0.2, basis = "published", source = "our utility, 2026", date = "2026-01" }.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from twofold.catalog.form import (
    Candidate,
    check_schema,
    read_figure,
    read_figures,
    read_rows,
    read_table,
    unknown_key,
)
from twofold.catalog.layers import read_toml
from twofold.catalog.places import grid, resolve_region
from twofold.catalog.pool import PoolSpec, make_pool, parse_pool, rounding_remark
from twofold.catalog.pool_links import check_links, read_links
from twofold.catalog.prices import Term
from twofold.errors import InputError
from twofold.figure import Figure
from twofold.fleet import Fleet, Pool, PoolLink

_POOL_FIGURES = {
    "usd_per_machine_hour": "USD/h",
    "usd_per_device_hour": "USD/h",
    "grid_kgco2e_per_kwh": "kgCO2e/kWh",
    "pue": "1",
    "water_l_per_kwh": "L/kWh",
    "preemptions_per_hour": "1/h",
    "cpu_cores": "1",
}
_POOL_KEYS = (
    "machine", "accelerator", "count", "name", "region", "term",
    "accelerator_figures", "machine_figures", *_POOL_FIGURES,
)  # fmt: skip
_PORT_RATE = "scale_out.bandwidth_bytes_per_s"
_FLEET_KEYS = ("schema", "name", "region", "pool", "link")


def read_fleet(
    specs: Sequence[str | Path], *, region: str | None = None, term: Term = "on-demand"
) -> Fleet:
    """The fleet of all pools of the specs, in their order; equal names are numbered.

    `region` and `term` hold for every pool that does not say otherwise. InputError: a spec that
    is neither NAME:COUNT nor a readable file, and all that the pools may raise.
    """
    pools = _numbered([pool for spec in specs for pool in _pools(spec, region, term)])
    return Fleet(
        name=" + ".join(_title(spec) for spec in specs), pools=pools, links=_links(specs, pools)
    )


def fleet_specs(
    specs: Sequence[str | Path], *, region: str | None = None, term: Term = "on-demand"
) -> list[PoolSpec]:
    """What the specs ask for, without calibrations: the pools before they are looked up."""
    return [
        pool
        for spec in specs
        if not _is_file(spec, ".json")
        for pool in _pool_specs(spec, region, term)
    ]


def rounding_remarks(
    specs: Sequence[str | Path], *, region: str | None = None, term: Term = "on-demand"
) -> tuple[str, ...]:
    """Where more devices are taken than asked for, because machines come whole."""
    asked = fleet_specs(specs, region=region, term=term)
    told = [rounding_remark(spec, make_pool(spec)) for spec in asked]
    return tuple(remark for remark in told if remark is not None)


def _pools(spec: str | Path, region: str | None, term: Term) -> list[Pool]:
    if _is_file(spec, ".json"):
        return _calibrated(Path(spec), region)
    return [make_pool(pool) for pool in _pool_specs(spec, region, term)]


def _pool_specs(spec: str | Path, region: str | None, term: Term) -> list[PoolSpec]:
    if _is_file(spec, ".toml"):
        return _read_specs(Path(spec), region, term)
    name, count = parse_pool(str(spec))
    return [PoolSpec(name=name, count=count, region=region, term=term)]


def _read_specs(path: Path, region: str | None, term: Term) -> list[PoolSpec]:
    content = read_toml(path)
    check_schema(content, str(path))
    for key in content:
        if key not in _FLEET_KEYS:
            raise unknown_key(key, _FLEET_KEYS, f"{path}, {key}")
    rows = read_rows(content, "pool", str(path))
    if not rows:
        raise InputError(
            "a fleet without a pool", at=str(path), help="add [[pool]] with machine and count"
        )
    _check_text(content, "region", str(path))
    region = content.get("region", region)
    specs = [
        _read_spec(row, f"{path}, pool {index + 1}", region, term) for index, row in enumerate(rows)
    ]
    labels = [spec.label for spec in specs if spec.label is not None]
    for label in labels:
        if labels.count(label) > 1:
            raise InputError(
                f"{labels.count(label)} pools are named '{label}'",
                at=str(path),
                help="give each its own name: links and plans name pools",
            )
    return specs


def _read_spec(row: dict[str, Any], at: str, region: str | None, term: Term) -> PoolSpec:
    for key in row:
        if key not in _POOL_KEYS:
            raise unknown_key(key, _POOL_KEYS, f"{at}, {key}")
    for key in ("machine", "accelerator", "name", "region"):
        _check_text(row, key, at)
    named = [row[key] for key in ("machine", "accelerator") if key in row]
    if len(named) != 1:
        raise InputError(
            "a pool names either its machine or its accelerator",
            at=at,
            help='write machine = "dgx-h100" or accelerator = "h100-sxm"',
        )
    count = row.get("count", 1)
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise InputError(
            f"{count!r} is not a count of at least 1", at=f"{at}, count", help="fix it"
        )
    own_term = row.get("term", term)
    if own_term not in get_args(Term):
        raise InputError(
            f"'{own_term}' is not a term", at=f"{at}, term", help="use " + ", ".join(get_args(Term))
        )
    figures: dict[str, Figure] = {
        key: read_figure(row[key], unit=unit, at=f"{at}, {key}")
        for key, unit in _POOL_FIGURES.items()
        if key in row
    }
    nearest = 1_000_000  # the user's own file is nearer than any folder
    return PoolSpec(
        name=str(named[0]),
        count=count,
        counts="machines" if "machine" in row else "devices",
        label=row.get("name"),
        region=row.get("region", region),
        term=own_term,
        accelerator_figures=read_figures(
            read_table(row, "accelerator_figures", at), "accelerator", origin=at, layer=nearest
        ),
        machine_figures=_checked_port(
            read_figures(read_table(row, "machine_figures", at), "node", origin=at, layer=nearest),
            at,
        ),
        **figures,
    )


def _checked_port(
    figures: dict[str, tuple[Candidate, ...]], at: str
) -> dict[str, tuple[Candidate, ...]]:
    """InputError where the port of a machine has no rate, as of a link: times divide by it."""
    for candidate in figures.get(_PORT_RATE, ()):
        if candidate.figure.value <= 0:
            raise InputError(
                "a port of no rate",
                at=f"{at}, machine_figures.{_PORT_RATE}",
                help="use more than 0",
            )
    return figures


def _links(specs: Sequence[str | Path], pools: Sequence[Pool]) -> tuple[PoolLink, ...]:
    """Those of all fleet files, each between two of the pools."""
    links: list[PoolLink] = []
    for spec in specs:
        if _is_file(spec, ".toml"):
            path = str(spec)
            links += read_links(read_rows(read_toml(Path(spec)), "link", path), path)
            _check_ambiguous(links, pools, path)
            check_links(links, [pool.name for pool in pools], path)
    return tuple(links)


def _check_ambiguous(links: Sequence[PoolLink], pools: Sequence[Pool], path: str) -> None:
    """InputError where a link names several pools: only the first would get it, in silence."""
    names = {pool.name for pool in pools}
    for name in (name for link in links for name in link.between):
        if f"{name}#2" in names:
            raise InputError(
                f"a link names the pool '{name}', and there are several of that name",
                at=f"{path}, link, between",
                help="give each [[pool]] a name of its own",
            )


def _check_text(row: Mapping[str, Any], key: str, at: str) -> None:
    if not isinstance(row.get(key, ""), str):
        raise InputError(f"{row[key]!r} is not a text", at=f"{at}, {key}", help="put it in quotes")


def _calibrated(path: Path, region: str | None) -> list[Pool]:
    """The pools of a calibration, as `twofold calibrate` wrote it; it knows no place."""
    from twofold.document import from_mapping, read_json  # brings numpy, which names do not need

    content = read_json(path, dict[str, Any])
    if "fleet" not in content:
        raise InputError(
            "the file holds no fleet", at=str(path), help="give a file that `calibrate` wrote"
        )
    pools = from_mapping(content["fleet"], Fleet, at=f"{path}, fleet").pools
    if region is None:
        return list(pools)
    place = resolve_region(region)
    return [
        pool
        if pool.region is not None
        else replace(
            pool,
            region=place,
            grid_kgco2e_per_kwh=pool.grid_kgco2e_per_kwh or grid(place),
        )
        for pool in pools
    ]


def _numbered(pools: list[Pool]) -> tuple[Pool, ...]:
    seen: dict[str, int] = {}
    numbered = []
    for pool in pools:
        seen[pool.name] = seen.get(pool.name, 0) + 1
        count = seen[pool.name]
        numbered.append(pool if count == 1 else replace(pool, name=f"{pool.name}#{count}"))
    return tuple(numbered)


def _is_file(spec: str | Path, suffix: str) -> bool:
    return str(spec).endswith(suffix)


def _title(spec: str | Path) -> str:
    return Path(spec).stem if _is_file(spec, ".toml") or _is_file(spec, ".json") else str(spec)
