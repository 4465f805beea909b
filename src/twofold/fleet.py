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
LinkScope = Literal["scale-up", "scale-out", "host"]
Topology = Literal["switched", "full-mesh", "torus2d", "torus3d", "tree"]


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
class StepCurve:
    """Time of one step of the embedded serving engine with one model, as measured.

    T = step_s + token_s x tokens + sequence_s x sequences + pair_s x pairs + key_s x keys

    over the tokens of the step, the sequences it holds, the query-key pairs of its prompt tokens
    and the keys that its decoding sequences read. `answer_s` is what a lone request waits for its
    first token outside of steps, on the way to the engine and back. `model_hash` is `part_hash`
    of the model.
    """

    model_hash: str
    precision: str
    weight_precision: str
    threads: int
    step_s: float
    token_s: float
    sequence_s: float
    pair_s: float
    key_s: float
    spread: float
    answer_s: float = 0.0


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
    steps: tuple[StepCurve, ...] = ()
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
    """A connection: a message of b bytes takes latency_s + b / bandwidth_bytes_per_s.

    The bandwidth is one way and per device. A `scale-up` link joins `domain` devices (8 in an
    HGX node, 72 in an NVL72 rack, a whole slice of a TPU), a `scale-out` link all machines
    (domain 0), a `host` link a device and its host's memory. In a `full-mesh` a pair of devices
    has only `pair_bytes_per_s`. `fabric` names the family whose efficiency was fitted
    ("nvlink4", "infiniband", "ici"). `in_network_reduction`: the switch adds (SHARP).
    """

    name: str
    latency_s: Figure
    bandwidth_bytes_per_s: Figure
    scope: LinkScope = "host"
    domain: int = 0
    topology: Topology = "switched"
    fabric: str = ""
    pair_bytes_per_s: Figure | None = None
    in_network_reduction: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Accelerator:
    """One device. `flop_per_s` by precision is the roof: measured where calibrated, else the
    datasheet's dense rate; a precision that is not a key is unknown, never zero. `threads` are
    those it may use (1 unless a CPU). `die` names the silicon (several products share one) and
    `launched` ("2022-10") the month of its first product, from which software matures.
    `failures_per_hour` are those that stop a job. `embodied_kgco2e` is that of the device and its
    share of the board."""

    name: str
    kind: AcceleratorKind
    memory: MemoryTier
    flop_per_s: dict[str, Figure]
    threads: int = 1
    power_idle_w: Figure | None = None
    power_max_w: Figure | None = None
    vendor: str = ""
    die: str | None = None
    launched: str | None = None
    failures_per_hour: Figure | None = None
    embodied_kgco2e: Figure | None = None
    curves: Curves | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A machine: equal accelerators, their links, and the host's memory tiers.

    `power_overhead_w` is the machine's power beside its accelerators (CPUs, memory, fans, NICs).
    """

    name: str
    accelerator: Accelerator
    num_accelerators: int = 1
    host_memory: tuple[MemoryTier, ...] = ()
    links: tuple[Link, ...] = ()
    power_overhead_w: Figure | None = None
    embodied_kgco2e: Figure | None = None

    def link(self, scope: LinkScope) -> Link | None:
        """The link of that scope, or None where the node has none."""
        return next((link for link in self.links if link.scope == scope), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """Equal nodes in one place, at one price.

    `grid_kgco2e_per_kwh` is the place's electricity, `pue` its facility power over IT power,
    `water_l_per_kwh` on site. `preemptions_per_hour` are a spot machine's. `cpu_cores` is the CPU
    quota of each machine's process, in cores (None: all it has).
    """

    name: str
    node: Node
    num_nodes: int = 1
    usd_per_node_hour: Figure | None = None
    region: str | None = None
    grid_kgco2e_per_kwh: Figure | None = None
    pue: Figure | None = None
    water_l_per_kwh: Figure | None = None
    preemptions_per_hour: Figure | None = None
    cpu_cores: Figure | None = None

    @property
    def num_devices(self) -> int:
        return self.num_nodes * self.node.num_accelerators


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolLink:
    """What joins two pools: its whole rate one way, for all their devices together."""

    between: tuple[str, str]
    latency_s: Figure
    bandwidth_bytes_per_s: Figure


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """Everything a plan may use. Pools that no `links` join talk over their own networks."""

    name: str
    pools: tuple[Pool, ...]
    links: tuple[PoolLink, ...] = ()

    def __post_init__(self) -> None:
        if not self.pools:
            raise InputError("a fleet without a pool", at=f"fleet '{self.name}'", help="add one")

    def link_between(self, a: str, b: str) -> PoolLink | None:
        """The link that was stated for two pools, or None."""
        return next((link for link in self.links if {a, b} == set(link.between)), None)

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
