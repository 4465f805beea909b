"""Time of gloo's all-reduce over sockets: Ethernet between machines, loopback on one.

gloo adds long and short messages alike round a ring in chunks (`allreduce.cc`, its only algorithm
for CPU tensors; the bytes on the interface agree): every rank sends W = 2 (M - 1) / M V bytes in
2 (M - 1) rounds and receives as many. While the sockets copy, the link drains, so the slower of
the two sets the pace, and of unlike ports the slowest, since every byte passes every one.

    T = max(c (R l + W / B_cpu), R (l + l_net) + max over ports of (f W - burst) / B_port)

with R = 2 (M - 1) rounds and c the ranks on a core, at least 1. l is what a round takes to be sent
and noticed, B_cpu what the processors copy and add, both from `twofold calibrate`; f is the frames'
overhead. A token bucket lets its burst pass at once (`tc tbf`, and the limits of cloud machines),
which makes short messages fast after a rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from twofold.errors import InputError
from twofold.fleet import Node

_SEGMENT_BYTES, _FRAME_BYTES, _ACKNOWLEDGEMENT_BYTES = 1448, 1514, 66
FRAMED = (_FRAME_BYTES + _ACKNOWLEDGEMENT_BYTES / 2) / _SEGMENT_BYTES
"""f: bytes on the wire for each byte sent. A frame of Ethernet carries 1448 bytes of TCP with
timestamps, and every second one is acknowledged by 66 bytes (RFC 1122, 4.2.3.2), which leave by the
same port since every rank receives what it sends."""
MESSAGE_SCALAR, RATE_SCALAR = "gloo_message_s", "gloo_bytes_per_s"
_MACHINE_LINK = "gloo"


@dataclass(frozen=True, slots=True, kw_only=True)
class SocketPath:
    """What two processes of a machine measured on each other: seconds a round, and bytes/s of
    payload that each sends while it receives and adds as many."""

    message_s: float
    bytes_per_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """A limited network port: its rate one way, what its token bucket lets pass at once, and the
    time that its network adds to a message."""

    bytes_per_s: float
    burst_bytes: float = 0.0
    latency_s: float = 0.0


def ring_bytes(size_bytes: float, ranks: int) -> float:
    """W = 2 (M - 1) / M V: what each rank sends (Patarasuk and Yuan 2009, section 3)."""
    return 2.0 * (ranks - 1) / ranks * size_bytes


def all_reduce_s(
    size_bytes: float,
    ranks: int,
    path: SocketPath,
    ports: Sequence[Port] = (),
    *,
    ranks_per_core: float = 1.0,
) -> float:
    """Seconds of an all-reduce of `size_bytes` that finds the links idle.

    `ports` are those of the ranks. More ranks than cores (`ranks_per_core` above 1) wake, copy and
    add one after the other.
    """
    if ranks < 2:
        return 0.0
    rounds, sent = 2.0 * (ranks - 1), ring_bytes(size_bytes, ranks)
    processors_s = rounds * path.message_s + sent / path.bytes_per_s
    network_s = max((port.latency_s for port in ports), default=0.0)
    draining_s = max((_drained_s(sent, port) for port in ports), default=0.0)
    link_s = rounds * (path.message_s + network_s) + draining_s
    return max(max(1.0, ranks_per_core) * processors_s, link_s)


def _drained_s(sent_bytes: float, port: Port) -> float:
    return max(0.0, FRAMED * sent_bytes - port.burst_bytes) / port.bytes_per_s


def socket_path(node: Node) -> SocketPath:
    """As the node's calibration has it; calibrations before there were these scalars hold the
    same two numbers in their link. InputError where neither is known."""
    curves = node.accelerator.curves
    if curves is not None and {MESSAGE_SCALAR, RATE_SCALAR} <= curves.scalars.keys():
        return SocketPath(
            message_s=curves.scalars[MESSAGE_SCALAR].value,
            bytes_per_s=curves.scalars[RATE_SCALAR].value,
        )
    link = next((link for link in node.links if link.name == _MACHINE_LINK), None)
    if link is None:
        raise InputError(
            f"the time of collectives on '{node.name}' is not known: {MESSAGE_SCALAR} and "
            f"{RATE_SCALAR} were not measured",
            at=f"node '{node.name}', curves, scalars",
            help="run `twofold calibrate` on it, where PyTorch has gloo",
        )
    return SocketPath(
        message_s=link.latency_s.value / 2.0,
        bytes_per_s=link.bandwidth_bytes_per_s.value,
    )
