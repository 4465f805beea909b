from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twofold.perf.collectives import (
    Fabric,
    all_gather_s,
    all_reduce_s,
    all_to_all_s,
    reduce_scatter_s,
    send_s,
)

H100 = Fabric(
    domain=8.0, up_bytes_per_s=450e9, up_latency_s=4e-6, out_bytes_per_s=50e9, out_latency_s=8e-6
)
MI300X = replace(H100, up_bytes_per_s=448e9, mesh_pair_bytes_per_s=64e9)
B200_EFA = replace(H100, up_bytes_per_s=900e9)
TPU_V4 = replace(H100, domain=4096.0, up_bytes_per_s=270e9, torus_axes=3.0)

COLLECTIVES = [all_reduce_s, reduce_scatter_s, all_gather_s, all_to_all_s, send_s]
FABRICS = [H100, MI300X, TPU_V4, replace(H100, up_reduces=1.0, out_reduces=1.0)]

collective = pytest.mark.parametrize("collective_s", COLLECTIVES, ids=lambda f: f.__name__)
sizes = st.floats(1.0, 1e12)
groups = st.integers(0, 12).map(lambda power: 2.0**power)
fabrics = st.sampled_from(FABRICS)


def busbw(ranks: float, size: float, fabric: Fabric) -> float:
    """nccl-tests' bus bandwidth: 2 (n-1)/n V / T."""
    return float(2 * (ranks - 1) / ranks * size / all_reduce_s(size, ranks, 1.0, fabric))


@collective
@settings(deadline=None)
@given(size=sizes, stride=groups, fabric=fabrics)
def test_one_rank_sends_nothing(collective_s, size, stride, fabric) -> None:
    assert collective_s(size, 1.0, stride, fabric) == 0.0


@collective
@settings(deadline=None)
@given(size=sizes, ranks=groups, stride=groups, fabric=fabrics, factor=st.floats(1.0, 100.0))
def test_more_bandwidth_is_never_slower(collective_s, size, ranks, stride, fabric, factor) -> None:
    before = collective_s(size, ranks, stride, fabric)
    for field in ("up_bytes_per_s", "out_bytes_per_s", "mesh_pair_bytes_per_s"):
        value = getattr(fabric, field)
        if value is not None:
            faster = replace(fabric, **{field: value * factor})
            assert collective_s(size, ranks, stride, faster) <= before


@collective
@settings(deadline=None)
@given(size=sizes, ranks=groups, stride=groups, fabric=fabrics, factor=st.floats(1.0, 100.0))
def test_longer_messages_are_never_faster(
    collective_s, size, ranks, stride, fabric, factor
) -> None:
    short = collective_s(size, ranks, stride, fabric)
    assert short <= collective_s(size * factor, ranks, stride, fabric)


@collective
@settings(deadline=None)
@given(size=sizes, ranks=groups, stride=groups)
def test_a_larger_domain_is_never_slower(collective_s, size, ranks, stride) -> None:
    times = [collective_s(size, ranks, stride, replace(H100, domain=d)) for d in (1.0, 8.0, 72.0)]
    assert times[0] >= times[1] * (1 - 1e-12) >= times[2] * (1 - 1e-12)


@settings(deadline=None)
@given(size=sizes, ranks=groups, stride=groups, fabric=fabrics)
def test_an_all_reduce_is_a_reduce_scatter_and_an_all_gather(size, ranks, stride, fabric) -> None:
    apart = reduce_scatter_s(size, ranks, stride, fabric) + all_gather_s(
        size, ranks, stride, fabric
    )
    whole = all_reduce_s(size, ranks, stride, fabric)
    if fabric.up_reduces is None:
        assert whole == pytest.approx(apart)
    else:
        assert whole <= apart * (1 + 1e-12)


def test_inside_a_domain_it_is_the_ring() -> None:
    size = 1e10
    expected = 2 * 7 / 8 * size / 450e9 + 2 * 3 * 4e-6
    assert all_reduce_s(size, 8.0, 1.0, H100) == pytest.approx(expected)


def test_across_domains_the_slower_network_sets_the_pace() -> None:
    size = 1e10
    latencies = 2 * (3 * 4e-6 + 4 * 8e-6)
    outside = 2 * 15 / 16 * size / (8 * 50e9)
    assert all_reduce_s(size, 128.0, 1.0, H100) == pytest.approx(outside + latencies)
    strided = 2 * 127 / 128 * size / 50e9 + 2 * 7 * 8e-6
    assert all_reduce_s(size, 128.0, 8.0, H100) == pytest.approx(strided)


def test_the_measured_rate_of_32_b200_is_below_the_roof_and_above_half_of_it() -> None:
    """381.8 GB/s bus bandwidth at 16 GiB (network chapter of ML Engineering at 744d01e)."""
    roof = busbw(32.0, 16 * 2.0**30, B200_EFA) / 1e9
    assert 0.5 < 381.8 / roof < 1.0


def test_a_pair_in_a_full_mesh_has_one_link() -> None:
    """Measured on MI300X: 47.7 GB/s between 2 devices of 64 sold, 312.9 among 8 of 448."""
    pair, all_eight = busbw(2.0, 1e11, MI300X) / 1e9, busbw(8.0, 1e11, MI300X) / 1e9
    assert pair == pytest.approx(64.0, rel=1e-2)
    assert all_eight == pytest.approx(448.0, rel=1e-2)
    assert 312.9 / all_eight == pytest.approx(47.7 / pair, rel=0.1)


def test_switches_that_add_beat_the_wire() -> None:
    """NVLink SHARP reaches 1.07 of the link's rate as bus bandwidth on 8 H200."""
    assert busbw(8.0, 1e11, replace(H100, up_reduces=1.0)) / 450e9 > 1.07
    assert busbw(2.0, 1e11, replace(H100, up_reduces=1.0)) / 450e9 <= 1.0


def test_a_torus_gives_a_small_group_one_of_its_axes() -> None:
    one_axis, all_axes = busbw(4.0, 1e11, TPU_V4), busbw(64.0, 1e11, TPU_V4)
    assert one_axis == pytest.approx(270e9 / 3, rel=1e-2)
    assert all_axes == pytest.approx(270e9, rel=1e-2)


def test_most_of_an_all_to_all_leaves_the_domain() -> None:
    size = 1e10
    assert all_to_all_s(size, 64.0, 1.0, H100) == pytest.approx(
        7 / 8 * size / 50e9 + 3 * 4e-6 + 3 * 8e-6
    )


def test_columns_agree_with_one_row_calls_and_broadcast_over_operations() -> None:
    ranks = np.array([1.0, 2.0, 8.0, 64.0, 512.0])
    size = np.array([[1e3], [1e6], [1e9]]) * np.ones(5)
    fabric = replace(
        H100,
        mesh_pair_bytes_per_s=np.array([64e9, 64e9, np.inf, np.inf, 64e9]),
        torus_axes=np.array([0.0, 0.0, 0.0, 2.0, 3.0]),
        up_reduces=np.array([0.0, 1.0, 1.0, 0.0, 0.0]),
    )
    for collective_s in COLLECTIVES:
        table = collective_s(size, ranks, 1.0, fabric)
        assert table.shape == (3, 5)
        for column in range(5):
            one = replace(
                fabric,
                mesh_pair_bytes_per_s=fabric.mesh_pair_bytes_per_s[column],
                torus_axes=fabric.torus_axes[column],
                up_reduces=fabric.up_reduces[column],
            )
            assert table[2, column] == pytest.approx(
                float(collective_s(1e9, ranks[column], 1.0, one)), rel=1e-12
            )
