"""Pools of this machine, and links between pools, as a fleet file states them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.catalog.overlays import write
from tests.fleets import figure
from tests.machines import calibrated_fleet
from twofold.calibrate import default_overlay_path
from twofold.calibrate.overlay import write_overlay
from twofold.catalog import read_fleet, rounding_remarks
from twofold.errors import InputError
from twofold.fleet import Fleet, Link

MIXED = """
[[pool]]
name = "fast"
machine = "local"
count = 2
cpu_cores = 0.75
machine_figures.scale_out.bandwidth_bytes_per_s = 125e6
accelerator_figures.memory.usable_bytes = 2e9

[[pool]]
name = "slow"
machine = "local"
cpu_cores = 0.25

[[link]]
between = ["fast", "slow"]
bandwidth_bytes_per_s = 1.25e6
latency_s = 0.02
"""


@pytest.fixture(autouse=True)
def calibrated(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A calibration of this machine, where Twofold looks for it."""
    monkeypatch.setenv("TWOFOLD_HOME", str(workplace / "home"))
    fleet = calibrated_fleet()
    measured = Link(
        name="gloo", latency_s=figure(1e-3, "s"), bandwidth_bytes_per_s=figure(5e8, "B/s")
    )
    pool = fleet.pools[0]
    node = replace(pool.node, links=(measured,))
    path = default_overlay_path()
    write_overlay(
        Fleet(name="here", pools=(replace(pool, node=node),)), path, host={}, date="2026-11-24"
    )
    return path


def test_two_fast_and_a_slow_one_on_this_machine(workplace: Path) -> None:
    fleet = read_fleet([write(workplace / "mixed.toml", MIXED)])
    fast, slow = fleet.pools
    assert (fast.num_devices, slow.num_devices) == (2, 1)
    assert fast.cpu_cores is not None
    assert fast.cpu_cores.value == 0.75
    assert fast.node.accelerator.curves == slow.node.accelerator.curves
    assert fast.node.accelerator.memory.usable_bytes.value == 2e9
    ports = [pool.node.link("scale-out") for pool in fleet.pools]
    assert [port.bandwidth_bytes_per_s.value for port in ports if port] == [125e6, 5e8]
    assert ports[0] is not None
    assert ports[0].latency_s.basis == "assumed"
    assert all(any(link.name == "gloo" for link in pool.node.links) for pool in fleet.pools)
    link = fleet.link_between("slow", "fast")
    assert link is not None
    assert link.bandwidth_bytes_per_s.value == 1.25e6
    assert rounding_remarks([workplace / "mixed.toml"]) == ()


def test_a_spec_counts_processes_of_this_machine() -> None:
    pool = read_fleet(["local:3"]).pools[0]
    assert (pool.num_devices, pool.cpu_cores) == (3, None)


def test_what_was_never_measured_is_asked_for(calibrated: Path) -> None:
    calibrated.unlink()
    with pytest.raises(InputError, match="not calibrated"):
        read_fleet(["local:1"])


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (MIXED.replace("0.25", "3"), "3 cores of the 2"),
        (MIXED.replace("0.25", "0"), "0 cores of the 2"),
        (MIXED.replace("0.25", '"half"'), "not a figure"),
        (MIXED.replace("memory.usable_bytes", "flop_per_s.bf16"), "measured, not stated"),
        (MIXED.replace('"slow"]', '"slo"]'), "names the pool 'slo'"),
        (MIXED.replace('["fast", "slow"]', '["fast", "fast"]'), "between two pools"),
        (MIXED.replace('["fast", "slow"]', '"fast"'), "between two pools"),
        (MIXED.replace("latency_s = 0.02", ""), "has no `latency_s`"),
        (MIXED.replace("latency_s = 0.02", "latency_ms = 20"), "no key 'latency_ms'"),
        (MIXED.replace("1.25e6", "0"), "no rate"),
        (MIXED.replace("1.25e6", "-1"), "non-negative"),
        (MIXED + MIXED[MIXED.index("[[link]]") :], "two links between"),
        ('link = 3\n[[pool]]\nmachine = "local"\n', "not a list of tables"),
        ('[[pool]]\nmachine = "dgx-h100"\ncpu_cores = 1\n', "quota of cores"),
    ],
)
def test_what_cannot_be_meant_is_refused(text: str, what: str, workplace: Path) -> None:
    with pytest.raises(InputError, match=what):
        read_fleet([write(workplace / "mixed.toml", text)])
