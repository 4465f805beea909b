"""The host's memory beside the devices: what an offloaded optimizer streams through and fills."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from twofold.fleet import Node

UNKNOWN_BYTES_PER_S = 25e9
"""Of host memory a device where it is not known (assumed): two sockets of eight DDR4-3200
channels are sold at 410 GB/s, of which an Adam on processors reaches half, shared by eight."""
USABLE_FRACTION = 0.8
"""Of the host's memory; the rest is the system's, the data loader's and staging buffers'."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """One machine's memory: `memory_bytes` of the whole machine (inf: not known), `devices` that
    share it, and `bytes_per_s` for each of them."""

    memory_bytes: float = np.inf
    bytes_per_s: float = UNKNOWN_BYTES_PER_S
    devices: int = 1


UNKNOWN_HOST = Host()


def host_of(node: Node) -> Host:
    """What is known of a node's host memory."""
    if not node.host_memory:
        return Host(devices=node.num_accelerators)
    memory = node.host_memory[0]
    bandwidth = memory.bandwidth_bytes_per_s
    return Host(
        memory_bytes=memory.usable_bytes.value,
        bytes_per_s=(
            UNKNOWN_BYTES_PER_S if bandwidth is None else bandwidth.value / node.num_accelerators
        ),
        devices=node.num_accelerators,
    )
