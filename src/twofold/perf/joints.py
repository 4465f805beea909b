"""What joins two pools: a stated link, or the slower of their own networks, by way of their
hosts where the devices have no collective library in common."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from twofold.errors import InputError
from twofold.fleet import Fleet, Node, Pool
from twofold.perf.speeds import Efficiencies

Array = NDArray[np.float64]

HOST_BYTES_PER_S = 16e9
"""Between a device and its host where it is not known: PCIe 3.0 x16."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Joint:
    """Between two pools a message takes latency_s + b / rate: `port_bytes_per_s` from one device
    to one, `bytes_per_s` from all devices side by side, b bytes together. `how` says what it goes
    over."""

    port_bytes_per_s: float
    bytes_per_s: float
    latency_s: float
    how: str
    stated: bool = False

    def rate_of(self, senders: float) -> float:
        """Bytes/s of so many devices that send side by side."""
        return min(self.bytes_per_s, senders * self.port_bytes_per_s)


def host_staged_bytes_per_s(
    first_host: float, network: float, second_host: float, direct: float | None = None
) -> float:
    """min(RDMA, 1 / (1/PCIe + 1/NIC + 1/PCIe)): device to host, host to host, host to device, one
    after the other (HETHUB, arXiv 2405.16256, its two communicators)."""
    staged = 1.0 / (1.0 / first_host + 1.0 / network + 1.0 / second_host)
    return staged if direct is None else min(direct, staged)


def joint_of(fleet: Fleet, a: Pool, b: Pool, fit: Efficiencies) -> Joint:
    """Between two pools of a fleet. InputError where nothing is known that joins them.

    A stated link is taken at its word. The pools' own networks carry what they reach (the fit's
    efficiency of the fabric) from all devices at once.
    """
    stated = fleet.link_between(a.name, b.name)
    if stated is not None:
        return Joint(
            port_bytes_per_s=min(_port(a, fit), _port(b, fit)),
            bytes_per_s=stated.bandwidth_bytes_per_s.value,
            latency_s=stated.latency_s.value,
            how="stated link",
            stated=True,
        )
    if a.region != b.region:
        raise _unknown(a, b, f"they are in {a.region or 'no place'} and {b.region or 'no place'}")
    out_a, out_b = a.node.link("scale-out"), b.node.link("scale-out")
    if out_a is None or out_b is None:
        lacking = a if out_a is None else b
        raise _unknown(a, b, f"'{lacking.name}' has no scale-out network that is known")
    latency_s = max(out_a.latency_s.value, out_b.latency_s.value)
    port = min(_port(a, fit), _port(b, fit))
    network = min(pool.num_devices * _port(pool, fit) for pool in (a, b))
    devices = (a.node.accelerator, b.node.accelerator)
    if devices[0].kind == "cpu" and devices[1].kind == "cpu":
        how = "the slower port"
    elif devices[0].vendor == devices[1].vendor:
        how = "the slower network"
    else:
        hosts = [_host(pool.node) for pool in (a, b)]
        every = [pool.num_devices * _host(pool.node) for pool in (a, b)]
        port = host_staged_bytes_per_s(hosts[0], port, hosts[1], direct=port)
        network = host_staged_bytes_per_s(every[0], network, every[1], direct=network)
        how = "the hosts: no collective library in common"
    return Joint(port_bytes_per_s=port, bytes_per_s=network, latency_s=latency_s, how=how)


def best_ring(pools: int, bytes_per_s: Array) -> tuple[int, ...]:
    """The order of pools round a ring whose slowest hop is fastest, by trying all of them."""
    if pools <= 2:
        return tuple(range(pools))
    return max(
        ((0, *rest) for rest in permutations(range(1, pools))),
        key=lambda order: min(bytes_per_s[i, j] for i, j in ring_hops(order)),
    )


def ring_hops(order: tuple[int, ...]) -> list[tuple[int, int]]:
    """Neighbours round the ring, the last and the first too."""
    if len(order) < 2:
        return []
    return list(zip(order, (*order[1:], order[0]), strict=True))


def _port(pool: Pool, fit: Efficiencies) -> float:
    """What one device's port reaches; a calibrated machine's is taken at its word."""
    link = pool.node.link("scale-out")
    if link is None:
        return np.inf
    if pool.node.accelerator.curves is not None:
        return link.bandwidth_bytes_per_s.value
    return fit.fabric(link.fabric, "scale-out").bandwidth * link.bandwidth_bytes_per_s.value


def _host(node: Node) -> float:
    link = node.link("host")
    return HOST_BYTES_PER_S if link is None else link.bandwidth_bytes_per_s.value


def _unknown(a: Pool, b: Pool, why: str) -> InputError:
    return InputError(
        f"what joins '{a.name}' and '{b.name}' is unknown: {why}",
        at="--fleet, link",
        help=f'state it: [[link]] between = ["{a.name}", "{b.name}"], bandwidth_bytes_per_s = .., '
        "latency_s = ..",
    )
