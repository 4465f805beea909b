"""All-reduce over sockets: the ring's bytes, the slowest port, bursts, what is not known."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.machines import calibrated_fleet
from twofold.errors import InputError
from twofold.figure import Figure
from twofold.fleet import Link, Node
from twofold.perf.sockets import FRAMED, Port, SocketPath, all_reduce_s, ring_bytes, socket_path

PATH = SocketPath(message_s=1e-4, bytes_per_s=1e9)
SLOW = Port(bytes_per_s=1.25e6)


def test_a_slow_link_takes_the_frames_of_the_ring() -> None:
    """1 MiB over three hosts at 10 Mbit/s with a burst of 16 KiB took 1.182 to 1.204 s."""
    port = replace(SLOW, burst_bytes=2**14)
    assert all_reduce_s(2**20, 3, PATH, [port] * 3) == pytest.approx(1.193, rel=0.02)
    assert abs(FRAMED - 1.068) < 1e-3


def test_a_fast_link_is_as_fast_as_the_processors() -> None:
    fast = Port(bytes_per_s=1e11)
    assert all_reduce_s(2**24, 2, PATH, [fast] * 2) == all_reduce_s(2**24, 2, PATH)
    assert all_reduce_s(2**24, 2, PATH) == pytest.approx(2 * 1e-4 + 2**24 / 1e9)


def test_more_ranks_than_cores_take_turns_and_a_slow_link_hides_that() -> None:
    alone = all_reduce_s(2**24, 3, PATH)
    assert all_reduce_s(2**24, 3, PATH, ranks_per_core=1.5) == pytest.approx(1.5 * alone)
    slow = all_reduce_s(2**24, 3, PATH, [SLOW])
    assert all_reduce_s(2**24, 3, PATH, [SLOW], ranks_per_core=1.5) == slow


def test_of_unlike_ports_the_slowest_counts() -> None:
    fast = Port(bytes_per_s=1.25e8)
    assert all_reduce_s(2**20, 3, PATH, [fast, SLOW, fast]) == all_reduce_s(
        2**20, 3, PATH, [SLOW] * 3
    )


def test_what_fits_the_burst_passes_at_once() -> None:
    port = replace(SLOW, burst_bytes=2**16, latency_s=2e-3)
    assert all_reduce_s(2**14, 2, PATH, [port]) == pytest.approx(2 * (1e-4 + 2e-3))


@given(size=st.floats(1, 1e9), ranks=st.integers(2, 64))
def test_a_rank_sends_less_than_twice_its_size(size: float, ranks: int) -> None:
    assert size <= ring_bytes(size, ranks) < 2 * size
    assert all_reduce_s(size, ranks, PATH, [SLOW]) >= all_reduce_s(size, ranks, PATH)


def test_one_rank_exchanges_nothing() -> None:
    assert all_reduce_s(2**20, 1, PATH, [SLOW]) == 0.0


def test_calibrations_before_the_scalars_are_read_and_none_is_refused() -> None:
    def figure(value: float, unit: str) -> Figure:
        return Figure(value=value, unit=unit, basis="measured", source="test", date="2026-11-24")

    link = Link(name="gloo", latency_s=figure(2e-4, "s"), bandwidth_bytes_per_s=figure(1e9, "B/s"))
    node: Node = calibrated_fleet().pools[0].node
    curves = node.accelerator.curves
    assert curves is not None
    bare = replace(node, links=(), accelerator=replace(node.accelerator, curves=None))
    assert socket_path(replace(bare, links=(link,))) == PATH
    with pytest.raises(InputError, match="gloo_message_s") as refused:
        socket_path(bare)
    assert "twofold calibrate" in str(refused.value.help)
