"""`Fleet`: pools of nodes, and what is known of the hardware in them, figure by figure.

An accelerator is anything that multiplies matrices, a CPU included. Its datasheet figures say
what it could do; its `Curves`, where it was calibrated, say what it does at the sizes and with
the framework that training uses. Precisions are spelled as in a plan ("fp32", "bf16"), with
the later "fp8", "nvfp4" ... as keys like any other.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

from twofold.errors import InputError
from twofold.figure import Figure

AcceleratorKind = Literal["cpu", "gpu", "tpu", "npu", "fpga"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GemmCurve:
    """Time of one matrix product [m, k] x [k, n] as training issues it, autograd included.

    T = overhead_s + 2 m n k / flop_per_s * (1 + m_half/m) (1 + n_half/n) (1 + k_half/k)

    `flop_per_s` is the rate of a large product. A dimension equal to its `half` runs at half
    the rate: narrow products waste vector lanes and reuse operands less. `op` is "linear", or
    "orthogonalise" for the batched products of Muon's iteration. `spread` is the relative
    scatter (one standard deviation) of the measurements about the curve.
    """

    op: str
    precision: str
    threads: int
    flop_per_s: Figure
    overhead_s: float
    m_half: float
    n_half: float
    k_half: float
    spread: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionCurve:
    """Time of causal self-attention from q, k, v [batch, heads, seq, head_dim] to its output.

    T = overhead_s + batch heads seq (seq score_s + head_dim (seq product_s + element_s))

    for `forward` and `backward` each, as (overhead_s, score_s, product_s, element_s): seconds
    per call, per score, per score and head channel, per q/k/v/output element.
    """

    kernel: str
    precision: str
    threads: int
    forward: tuple[float, float, float, float]
    backward: tuple[float, float, float, float]
    spread: float


@dataclass(frozen=True, slots=True, kw_only=True)
class OpCurve:
    """Time of one operation against the number of elements it touches, as measured.

    `sizes` rise; between them the time is interpolated on logs, beyond the last it grows in
    proportion, below the first it is constant (that is the cost of a call). `backward_s` is
    empty for what has no backward pass.
    """

    op: str
    precision: str
    threads: int
    sizes: tuple[float, ...]
    forward_s: tuple[float, ...]
    backward_s: tuple[float, ...] = ()
    spread: float = 0.0

    def __post_init__(self) -> None:
        if not self.sizes or len(self.sizes) != len(self.forward_s):
            self._refuse("needs as many times as sizes, and at least one")
        if self.backward_s and len(self.backward_s) != len(self.sizes):
            self._refuse("needs as many backward times as sizes, or none")
        if any(b <= a for a, b in pairwise(self.sizes)):
            self._refuse("needs sizes that rise")
        if min(self.sizes) <= 0 or min(self.forward_s + self.backward_s) < 0:
            self._refuse("needs positive sizes and times")

    def _refuse(self, rule: str) -> None:
        raise InputError(
            f"the curve of '{self.op}' ({self.precision}, {self.threads} threads) {rule}",
            at="fleet, curves",
            help="measure it again with `twofold calibrate`, or correct the overlay",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Curves:
    """What a calibration measured, with the framework version it was measured under.

    `scalars` are single figures by name: process start, framework import, memory base ...
    (listed in `twofold.calibrate.scalars`). `conditions` says how busy the machine was.
    """

    framework: str
    gemm: tuple[GemmCurve, ...] = ()
    attention: tuple[AttentionCurve, ...] = ()
    ops: tuple[OpCurve, ...] = ()
    scalars: dict[str, Figure] = field(default_factory=dict)
    conditions: dict[str, float | str | bool | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryTier:
    """One level of memory. Plans are held to `usable_bytes`, not to the label."""

    name: str
    usable_bytes: Figure
    bandwidth_bytes_per_s: Figure | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A connection: a message of b bytes takes latency_s + b / bandwidth_bytes_per_s."""

    name: str
    latency_s: Figure
    bandwidth_bytes_per_s: Figure


@dataclass(frozen=True, slots=True, kw_only=True)
class Accelerator:
    """One device. `flop_per_s` by precision is the roof: measured where calibrated, else the
    datasheet's dense rate. `threads` are those it may use (1 unless a CPU)."""

    name: str
    kind: AcceleratorKind
    memory: MemoryTier
    flop_per_s: dict[str, Figure]
    threads: int = 1
    power_idle_w: Figure | None = None
    power_max_w: Figure | None = None
    curves: Curves | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A machine: equal accelerators, their links, and the host's memory tiers."""

    name: str
    accelerator: Accelerator
    num_accelerators: int = 1
    host_memory: tuple[MemoryTier, ...] = ()
    links: tuple[Link, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """Equal nodes in one place, at one price."""

    name: str
    node: Node
    num_nodes: int = 1
    usd_per_node_hour: Figure | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """Everything a plan may use."""

    name: str
    pools: tuple[Pool, ...]

    def __post_init__(self) -> None:
        if not self.pools:
            raise InputError("a fleet without a pool", at=f"fleet '{self.name}'", help="add one")

    def pool(self, name: str) -> Pool:
        """The pool of that name, or InputError."""
        for pool in self.pools:
            if pool.name == name:
                return pool
        raise InputError(
            f"no pool '{name}'",
            at=f"fleet '{self.name}'",
            help="use one of " + ", ".join(pool.name for pool in self.pools),
        )
