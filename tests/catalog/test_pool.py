from __future__ import annotations

from datetime import date

import pytest

from twofold.catalog import PoolSpec, make_pool, remarks, resolve_pool
from twofold.catalog.pool import parse_pool, rounding_remark
from twofold.errors import InputError
from twofold.fleet import Fleet

TODAY = date(2026, 11, 24)


def test_a_machine_counts_machines_and_an_accelerator_devices() -> None:
    machines, devices = resolve_pool("azure-nd-h200-v5:64"), resolve_pool("h200-sxm:64")
    assert (machines.num_nodes, machines.num_devices) == (64, 512)
    assert (devices.num_nodes, devices.num_devices) == (8, 64)
    assert machines.name == "azure-nd-h200-v5"
    assert devices.name == "h200-sxm"


def test_without_a_count_it_is_one() -> None:
    assert resolve_pool("dgx-h100").num_devices == 8
    assert resolve_pool("h100-sxm").num_devices == 1


def test_fewer_devices_than_a_machine_are_one_partial_machine() -> None:
    pool = resolve_pool("h100-sxm:4")
    assert (pool.num_nodes, pool.num_devices, pool.node.num_accelerators) == (1, 4, 4)
    assert rounding_remark(PoolSpec(name="h100-sxm", count=4), pool) is None


def test_devices_beyond_one_machine_come_in_whole_machines_and_that_is_said() -> None:
    pool = resolve_pool("h100-sxm:12")
    assert (pool.num_nodes, pool.num_devices) == (2, 16)
    told = rounding_remark(PoolSpec(name="h100-sxm", count=12), pool)
    assert told is not None
    assert "12 devices asked for, 16 taken" in told


@pytest.mark.parametrize("text", ["h100:0", "h100:-4", "h100:1.5", "h100:many", ":4", "h100:"])
def test_bad_counts(text: str) -> None:
    with pytest.raises(InputError):
        resolve_pool(text)


def test_counts_may_have_a_prefix() -> None:
    assert parse_pool("h100-sxm:16k") == ("h100-sxm", 16000)


def test_what_is_known_is_filled_in() -> None:
    pool = resolve_pool("aws-p5:2", region="us-east-1")
    assert pool.region == "aws:us-east-1"
    assert pool.grid_kgco2e_per_kwh is not None
    assert pool.grid_kgco2e_per_kwh.value == pytest.approx(0.2448)
    assert "US-VA" in pool.grid_kgco2e_per_kwh.source
    assert pool.pue is not None
    assert pool.pue.value == 1.14
    assert pool.water_l_per_kwh is not None
    assert pool.usd_per_node_hour is not None
    assert pool.usd_per_node_hour.value == 55.04
    assert pool.node.accelerator.failures_per_hour is not None


def test_what_nobody_knows_stays_none() -> None:
    pool = resolve_pool("maia-200:4")
    assert pool.usd_per_node_hour is None
    assert pool.grid_kgco2e_per_kwh is None
    assert pool.pue is None
    assert pool.preemptions_per_hour is None
    assert pool.node.accelerator.failures_per_hour is None
    told = " ".join(remarks(Fleet(name="f", pools=(pool,)), today=TODAY))
    assert "unknown: " in told
    assert "usd_per_node_hour" in told


def test_remarks_tell_stale_prices_and_assumptions() -> None:
    pool = resolve_pool("aws-p5:2")
    told = remarks(Fleet(name="f", pools=(pool,)), today=TODAY)
    assert any("more than 30 days old" in remark for remark in told)
    assert any("assumed or announced" in remark and "latency" in remark for remark in told)


def test_a_spec_may_count_machines_of_an_accelerator() -> None:
    pool = make_pool(PoolSpec(name="h100-sxm", count=3, counts="machines"))
    assert (pool.num_nodes, pool.num_devices) == (3, 24)
