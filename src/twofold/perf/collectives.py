"""Time of messages among devices in two kinds of network: a fast one inside a scale-up domain
(NVLink, xGMI, ICI) and a slower one between domains (InfiniBand, Ethernet).

A group is `ranks` devices, `stride` apart in the order in which devices fill the domains. The
ranks that share a domain reduce among themselves and talk to the other domains side by side, each
for its own piece (hierarchical algorithm: Thakur, Rabenseifner and Gropp 2005, section 4; NCCL's
and RCCL's rings give the same volumes). Libraries pass long messages through both networks in
chunks, so the slower network sets the pace: one after the other they could not reach what is
measured (four nodes of eight B200 over EFA: 5.1 s per TB, where even full-rate phases add up to
5.7; Bekman, ML Engineering, network chapter at commit 744d01e). Latencies add up. Everything
broadcasts: sizes may be [operations, rows] where the groups are [rows].

Valid for messages long enough to be cut into pieces; the ramp at small sizes is the latency
alone (against published H100 sweeps such a form errs by 15 % in the mean, 29 % at worst).
Groups are taken as aligned: one that straddles domains although it would fit into one is not
found out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Column = Array | float

TORUS_SIDE = 4.0
"""Devices along one axis of a torus that a group fills before it turns to the next: the building
block of TPU v4 and later is 4x4x4, wrapped round by optical switches (Jouppi et al. 2023,
arXiv 2304.01433, section 2)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fabric:
    """The two networks, scalars or a column each. Bandwidths are one way and per device.

    `domain` devices share a scale-up network (1: none; then `up_bytes_per_s` is not used, give
    infinity). `mesh_pair_bytes_per_s` bounds what two devices of a full mesh exchange, infinite
    where the network is switched. `torus_axes` is 2 or 3 where it is a torus, whose bandwidth is
    spread over its axes, else 0. `up_reduces` and `out_reduces` are 1 where the switches add
    (NVLink SHARP, Quantum SHARP), else 0.
    """

    domain: Column
    up_bytes_per_s: Column
    up_latency_s: Column
    out_bytes_per_s: Column
    out_latency_s: Column
    mesh_pair_bytes_per_s: Column | None = None
    torus_axes: Column | None = None
    up_reduces: Column | None = None
    out_reduces: Column | None = None


def all_reduce_s(size_bytes: Column, ranks: Column, stride: Column, fabric: Fabric) -> Array:
    """T = 2 V max((ranks-1)/ranks / B_up, (n-1)/n / (r B_out)) + 2 log2(r) l_up + 2 log2(n) l_out.

    V bytes on every rank before and after; r ranks share a domain (the first term only if r > 1),
    n = ranks / r domains. Where switches add, a device sends its V and receives the sum:
    V (1 + 1/r) inside the domain (reduce by reading through the switch, multicast back), V
    outside, if that is less.
    """
    group = _group(ranks, stride, fabric)
    inside, outside = _shares(ranks, group)
    inside, outside = 2.0 * inside, 2.0 * outside
    if fabric.up_reduces is not None:
        added = np.minimum(inside, 1.0 + 1.0 / group.inside)
        inside = np.where(np.asarray(fabric.up_reduces) > 0, added, inside)
    if fabric.out_reduces is not None:
        added = np.minimum(outside, 1.0)
        outside = np.where(np.asarray(fabric.out_reduces) > 0, added, outside)
    per_byte = _slower(inside, outside, group, fabric)
    return np.asarray(size_bytes * per_byte + 2.0 * _latency_s(group, fabric))


def reduce_scatter_s(size_bytes: Column, ranks: Column, stride: Column, fabric: Fabric) -> Array:
    """T = V max((ranks-1)/ranks / B_up, (n-1)/n / (r B_out)) + log2(r) l_up + log2(n) l_out.

    V bytes on every rank before, V / ranks after: half of an all-reduce. Switches that add do
    not help: every device still sends its V.
    """
    group = _group(ranks, stride, fabric)
    inside, outside = _shares(ranks, group)
    per_byte = _slower(inside, outside, group, fabric)
    return np.asarray(size_bytes * per_byte + _latency_s(group, fabric))


def all_gather_s(size_bytes: Column, ranks: Column, stride: Column, fabric: Fabric) -> Array:
    """The reverse of a reduce-scatter, at the same price. V is what every rank has afterwards."""
    return reduce_scatter_s(size_bytes, ranks, stride, fabric)


def all_to_all_s(size_bytes: Column, ranks: Column, stride: Column, fabric: Fabric) -> Array:
    """T = V max((r-1)/ranks / B_up, (1 - r/ranks) / B_out) + log2(r) l_up + log2(n) l_out.

    V is what every rank holds, 1/ranks of it for each, itself included. The two networks work at
    the same time. In a torus messages are forwarded: a ring of s ranks carries V s / 4 over the
    two links of a rank where V (s-1)/s would do with a switch (Dally and Towles 2004, chapter 5,
    mean distance of a ring).
    """
    group = _group(ranks, stride, fabric)
    inside = (group.inside - 1.0) / ranks
    if fabric.torus_axes is not None:
        side = group.inside ** (1.0 / np.maximum(group.axes, 1.0))
        forwarded = np.maximum(inside, 0.25 * group.axes * side * (inside > 0) / group.domains)
        inside = np.where(np.asarray(fabric.torus_axes) > 0, forwarded, inside)
    outside = (1.0 - group.inside / ranks) / fabric.out_bytes_per_s
    per_byte = np.maximum(inside / group.up_bytes_per_s, outside)
    return np.asarray(size_bytes * per_byte + _latency_s(group, fabric))


def send_s(size_bytes: Column, ranks: Column, stride: Column, fabric: Fabric) -> Array:
    """T = l + V / B for each of `ranks` to send V bytes to the next one, all at the same time.

    One hop that leaves the domain sets the pace of all. Inside a full mesh a pair has one link,
    in a torus of d axes one of 2 d.
    """
    crosses = np.asarray(ranks) * stride > fabric.domain
    pair = np.asarray(fabric.up_bytes_per_s)
    if fabric.mesh_pair_bytes_per_s is not None:
        pair = np.minimum(pair, fabric.mesh_pair_bytes_per_s)
    if fabric.torus_axes is not None:
        pair = pair / np.maximum(2.0 * np.asarray(fabric.torus_axes), 1.0)
    several = np.asarray(ranks) > 1
    per_byte = several / np.where(crosses, fabric.out_bytes_per_s, pair)
    latency_s = several * np.where(crosses, fabric.out_latency_s, fabric.up_latency_s)
    return np.asarray(size_bytes * per_byte + latency_s)


class _Group(NamedTuple):
    """`inside` ranks in each of `domains`; the bandwidth and torus axes they have there."""

    inside: Array
    domains: Array
    up_bytes_per_s: Array
    axes: Array


def _group(ranks: Column, stride: Column, fabric: Fabric) -> _Group:
    """r = clip(floor(domain / stride), 1, ranks), n = ranks / r.

    A full mesh gives r ranks (r - 1) links of each; a torus of d axes gives them the bandwidth
    of the ceil(log4 r) axes they fill.
    """
    neighbours = np.floor(np.asarray(fabric.domain, dtype=np.float64) / stride)
    inside: Array = np.minimum(np.maximum(neighbours, 1.0), ranks)
    up: Array = np.asarray(fabric.up_bytes_per_s, dtype=np.float64)
    if fabric.mesh_pair_bytes_per_s is not None:
        up = np.minimum(up, np.maximum(inside - 1.0, 1.0) * fabric.mesh_pair_bytes_per_s)
    axes: Array = np.asarray(0.0)
    if fabric.torus_axes is not None:
        total = np.asarray(fabric.torus_axes, dtype=np.float64)
        filled = np.ceil(np.log(inside) / np.log(TORUS_SIDE) - 1e-9)
        axes = np.minimum(np.maximum(filled, 1.0), total)
        up = up * np.where(total > 0, axes / np.maximum(total, 1.0), 1.0)
    return _Group(inside, np.asarray(ranks / inside), up, axes)


def _shares(ranks: Column, group: _Group) -> tuple[Array, Array]:
    """Of the message, what passes a device's scale-up port (as in a ring of all ranks) and what
    passes all scale-out ports of a domain in one reduce-scatter."""
    inside = np.where(group.inside > 1, 1.0 - 1.0 / np.asarray(ranks), 0.0)
    return inside, np.asarray(1.0 - 1.0 / group.domains)


def _slower(inside: Array, outside: Array, group: _Group, fabric: Fabric) -> Array:
    """Seconds per byte of the message, of which these shares pass a device's two ports."""
    alone = group.inside * np.asarray(fabric.out_bytes_per_s)
    return np.asarray(np.maximum(inside / group.up_bytes_per_s, outside / alone))


def _latency_s(group: _Group, fabric: Fabric) -> Array:
    """Steps of a tree, log2 of the ranks at each level (Thakur et al. 2005, section 3)."""
    up = np.log2(group.inside) * fabric.up_latency_s
    return np.asarray(up + np.log2(group.domains) * fabric.out_latency_s)
