from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.catalog.overlays import write
from tests.fleets import plain_fleet
from twofold.catalog import read_fleet, rounding_remarks
from twofold.errors import InputError

LAB = """
name = "lab"
region = "DEU"

[[pool]]
machine = "dgx-h100"
count = 4
name = "old hall"
usd_per_machine_hour = 25.0
pue = { value = 1.3, basis = "published", source = "our meter", date = "2026-10" }
accelerator_figures.memory.usable_bytes = 84e9
machine_figures.scale_out.bandwidth_bytes_per_s = 25e9

[[pool]]
accelerator = "rtx-4090"
count = 4
region = "FRA"
usd_per_device_hour = 0.4
"""


def test_two_pools_of_one_name_are_refused(tmp_path: Path) -> None:
    twice = LAB.replace('accelerator = "rtx-4090"', 'accelerator = "rtx-4090"\nname = "old hall"')
    path = tmp_path / "lab.toml"
    path.write_text(twice)
    with pytest.raises(InputError, match="2 pools are named 'old hall'"):
        read_fleet([path])


def test_specs_in_their_order_with_equal_names_numbered() -> None:
    fleet = read_fleet(["dgx-h100:2", "mi300x:8", "dgx-h100:1"])
    assert [pool.name for pool in fleet.pools] == ["dgx-h100", "mi300x", "dgx-h100#2"]
    assert fleet.name == "dgx-h100:2 + mi300x:8 + dgx-h100:1"


def test_a_region_and_a_term_for_all() -> None:
    fleet = read_fleet(["h100-sxm:8", "a100:8"], region="SWE", term="spot")
    assert {pool.region for pool in fleet.pools} == {"SWE"}
    assert all(pool.usd_per_node_hour is not None for pool in fleet.pools)


def test_a_fleet_file(workplace: Path) -> None:
    fleet = read_fleet([write(workplace / "lab.toml", LAB)])
    hall, cards = fleet.pools
    assert fleet.name == "lab"
    assert (hall.name, hall.num_devices, hall.region) == ("old hall", 32, "DEU")
    assert hall.usd_per_node_hour is not None
    assert (hall.usd_per_node_hour.value, hall.usd_per_node_hour.basis) == (25.0, "user")
    assert hall.pue is not None
    assert hall.pue.basis == "published"
    assert hall.node.accelerator.memory.usable_bytes.value == 84e9
    out = hall.node.link("scale-out")
    assert out is not None
    assert out.bandwidth_bytes_per_s.value == 25e9
    assert (cards.num_nodes, cards.num_devices, cards.region) == (1, 4, "FRA")
    assert cards.usd_per_node_hour is not None
    assert cards.usd_per_node_hour.value == pytest.approx(1.6)
    assert cards.grid_kgco2e_per_kwh is not None


def test_a_calibration(workplace: Path) -> None:
    path = workplace / "calibration.json"
    content = {
        "schema_version": 1,
        "date": "2026-11-24",
        "host": {},
        "fleet": asdict(plain_fleet()),
    }
    path.write_text(json.dumps(content))
    assert read_fleet([path]).pools == plain_fleet().pools
    placed = read_fleet([str(path)], region="NOR").pools[0]
    assert placed.region == "NOR"
    assert placed.grid_kgco2e_per_kwh is not None
    path.write_text("{}")
    with pytest.raises(InputError, match="no fleet"):
        read_fleet([path])
    path.write_text("[1")
    with pytest.raises(InputError, match="not JSON"):
        read_fleet([path])


def test_rounding_is_told() -> None:
    assert rounding_remarks(["h100-sxm:16", "dgx-h100:3"]) == ()
    assert "16 taken" in rounding_remarks(["h100-sxm:9"])[0]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "without a pool"),
        ("pool = 3\n", "list of tables"),
        ("[[pool]]\ncount = 3\n", "either its machine or its accelerator"),
        ('[[pool]]\nmachine = "dgx-h100"\naccelerator = "h100-sxm"\n', "either its machine"),
        ('[[pool]]\nmachine = "dgx-h100"\ncount = 0\n', "count"),
        ('[[pool]]\nmachine = "dgx-h100"\ncount = 1.5\n', "count"),
        ('[[pool]]\nmachine = "dgx-h100"\nterm = "weekly"\n', "term"),
        ('[[pool]]\nmachine = "dgx-h100"\npue = -1\n', "non-negative"),
        ('[[pool]]\nmachine = "dgx-h100"\npue = nan\n', "finite"),
        ('[[pool]]\nmachine = "dgx-h100"\nmachines = 3\n', "no key"),
        ('[[pools]]\nmachine = "dgx-h100"\n', "no key"),
        ('[[pool]]\nmachine = "dgx-h10"\n', "dgx-h100"),
        ('[[pool]]\nmachine = "dgx-h100"\nregion = "narnia"\n', "narnia"),
        ('[[pool]]\nmachine = "dgx-h100"\naccelerator_figures.power.max = 3\n', "no key"),
        ("schema = 9\n[[pool]]\n", "schema"),
        ("[[pool", "not TOML"),
    ],
)
def test_bad_fleet_files(text: str, says: str, workplace: Path) -> None:
    with pytest.raises(InputError) as caught:
        read_fleet([write(workplace / "bad.toml", text)])
    assert says in str(caught.value)


def test_a_missing_file(workplace: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_fleet([workplace / "none.toml"])
    with pytest.raises(InputError, match="cannot be read"):
        read_fleet(["none.json"])
