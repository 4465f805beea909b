"""Whatever a user's file holds, the answer is an InputError or a value: never a traceback."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.catalog.overlays import write
from twofold.catalog import (
    describe,
    electricity_price,
    facility,
    grid,
    lint,
    list_regions,
    purchase_price,
    read_fleet,
    resolve_pool,
    rounding_remarks,
)
from twofold.errors import InputError

VALUES = (
    "3", "true", "'x'", "[]", "[1]", "['a']", "{}", "{ a = 1 }", "[[1]]", "nan", "-1",
    "1979-05-27", "{ value = 1 }", "{ value = 1, basis = 'user', source = 3 }",
    "{ value = 1, basis = [], source = 's' }", "{ value = 1, basis = { a = 1 }, source = 's' }",
    "{ value = 1, basis = 'user', source = 's', product_of = ['x'] }",
    "{ value = 1, basis = 'user', source = 's', spread = -1 }",
)  # fmt: skip

ACCELERATOR = (
    "aliases", "kind", "figures", "sources", "scale_up", "node", "node_devices", "schema",
    "scale_up.domain", "figures.flop_per_s", "figures.power.max_w", "die", "launched",
)  # fmt: skip
NODE = ("accelerator", "devices", "provider", "figures", "scale_out.fabric", "aliases")
PRICES = (
    "price", "purchase", "electricity", "currency", "provider", "sources", "schema",
    "preemptions_per_hour", "preemptions_per_hour.aws-p5",
)  # fmt: skip
PRICE = ("machine", "accelerator", "devices", "term", "region", "as_of", "usd_per_hour", "basis")
GRIDS = (
    "place", "lies_in", "facility", "sources", "schema", "basis", "date", "place.DEU",
    "place.DEU.name", "place.DEU.kgco2e_per_kwh", "lies_in.'azure:eastus'", "facility.AWS",
    "facility.AWS.pue",
)  # fmt: skip
POOL = (
    "count", "name", "region", "term", "usd_per_machine_hour", "pue", "accelerator_figures",
    "machine_figures", "accelerator_figures.power", "accelerator_figures.power.max_w",
)  # fmt: skip


def endure(ask: Callable[[], object]) -> None:
    try:
        ask()
    except InputError as error:
        complete = bool(error.at and error.help)
    else:
        complete = True
    assert complete


@pytest.mark.parametrize("value", VALUES)
def test_no_value_of_an_entry_breaks_the_catalog(value: str, workplace: Path) -> None:
    for key in ACCELERATOR:
        write(workplace / "catalog.d/accelerators/a.toml", f'id = "h100-sxm"\n{key} = {value}\n')
        endure(lambda: resolve_pool("aws-p5:2"))
    endure(lambda: describe("h100-sxm"))
    (workplace / "catalog.d/accelerators/a.toml").unlink()
    for key in NODE:
        write(workplace / "catalog.d/nodes/a.toml", f'id = "aws-p5"\n{key} = {value}\n')
        endure(lambda: resolve_pool("aws-p5:2"))
    endure(lint)


@pytest.mark.parametrize("value", VALUES)
def test_no_value_of_a_price_file_breaks_the_catalog(value: str, workplace: Path) -> None:
    path = workplace / "catalog.d" / "prices" / "a.toml"
    row = {"machine": "'aws-p5'", "accelerator": "'h100-sxm'", "usd_per_hour": "2", "source": "'s'"}
    texts = [f"{key} = {value}\n" for key in PRICES]
    for key in PRICE:
        lines = [f"{name} = {text}\n" for name, text in {**row, key: value}.items()]
        texts.append("[[price]]\n" + "".join(lines))
    for text in texts:
        write(path, text)
        endure(lambda: resolve_pool("aws-p5:2", term="spot"))
        endure(lambda: purchase_price("h100-sxm"))
        endure(lambda: electricity_price("USA"))
    endure(lint)


@pytest.mark.parametrize("value", VALUES)
def test_no_value_of_a_grid_file_breaks_the_catalog(value: str, workplace: Path) -> None:
    for key in GRIDS:
        write(workplace / "catalog.d" / "grids" / "a.toml", f"{key} = {value}\n")
        endure(lambda: grid("DEU"))
        endure(lambda: grid("azure:eastus"))
        endure(lambda: facility("AWS"))
        endure(list_regions)


@pytest.mark.parametrize("value", VALUES)
def test_no_value_of_a_fleet_file_breaks_the_catalog(value: str, workplace: Path) -> None:
    path = workplace / "f.toml"
    texts = [f'[[pool]]\nmachine = "aws-p5"\n{key} = {value}\n' for key in POOL]
    texts += [f"[[pool]]\n{key} = {value}\n" for key in ("machine", "accelerator")]
    texts += [f'{key} = {value}\n[[pool]]\nmachine = "aws-p5"\n' for key in ("name", "region")]
    texts.append(f"pool = {value}\n")
    for text in texts:
        write(path, text)
        endure(lambda: read_fleet([path]))
        endure(lambda: rounding_remarks([path]))
