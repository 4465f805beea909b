from __future__ import annotations

import pytest

from twofold.catalog import find_node, resolve_pool
from twofold.catalog.hardware import take_part
from twofold.fleet import Link, LinkScope, Node


def link_of(node: Node, scope: LinkScope) -> Link:
    link = node.link(scope)
    assert link is not None
    return link


def test_the_links_of_a_machine() -> None:
    node = find_node("azure-nd-h200-v5")
    up, out = link_of(node, "scale-up"), link_of(node, "scale-out")
    assert (up.fabric, up.domain, up.topology) == ("nvlink4", 8, "switched")
    assert up.bandwidth_bytes_per_s.value == 450e9
    assert up.in_network_reduction
    assert (out.fabric, out.domain) == ("infiniband", 0)
    assert out.bandwidth_bytes_per_s.value == 50e9
    assert link_of(node, "host").bandwidth_bytes_per_s.value == 64e9


def test_a_machine_may_differ_from_its_accelerator() -> None:
    assert link_of(find_node("aws-p5"), "scale-out").fabric == "efa"
    assert link_of(find_node("aws-p4d"), "scale-out").bandwidth_bytes_per_s.value == 6.25e9
    assert link_of(find_node("gcp-a3-mega"), "scale-out").bandwidth_bytes_per_s.value == 25e9


def test_a_full_mesh_has_a_pair_limit() -> None:
    up = link_of(find_node("azure-nd-mi300x-v5"), "scale-up")
    assert up.topology == "full-mesh"
    assert up.pair_bytes_per_s is not None
    assert up.pair_bytes_per_s.value == 64e9


@pytest.mark.parametrize(
    ("name", "devices", "domain"),
    [("azure-nd-gb200-v6", 4, 72), ("gb200-nvl72", 72, 72), ("gcp-tpu-v5p", 4, 8960),
     ("aws-trn2", 16, 16), ("aws-trn2-ultra", 64, 64)],
)  # fmt: skip
def test_a_rack_or_pod_joins_more_than_a_machine(name: str, devices: int, domain: int) -> None:
    node = find_node(name)
    assert node.num_accelerators == devices
    assert link_of(node, "scale-up").domain == domain


def test_one_device_alone_has_no_scale_up_link() -> None:
    assert find_node("azure-nc40-h100-v5").link("scale-up") is None
    assert link_of(find_node("azure-nc80-h100-v5"), "scale-up").domain == 2


def test_a_part_of_a_machine_has_its_share() -> None:
    whole = find_node("dgx-h100")
    half = take_part(whole, 4)
    assert half.num_accelerators == 4
    assert link_of(half, "scale-up").domain == 4
    assert half.host_memory[0].usable_bytes.value == whole.host_memory[0].usable_bytes.value / 2
    assert half.power_overhead_w is not None
    assert whole.power_overhead_w is not None
    assert half.power_overhead_w.value == whole.power_overhead_w.value / 2
    assert "4 of 8" in half.power_overhead_w.source
    assert take_part(whole, 1).link("scale-up") is None


def test_a_part_of_a_rack_keeps_its_fabric() -> None:
    pool = resolve_pool("gb200:2")
    assert (pool.num_nodes, pool.num_devices) == (1, 2)
    assert link_of(pool.node, "scale-up").domain == 72
