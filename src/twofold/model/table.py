"""The operator table's row, and what it costs: the only thing the physics knows of a model.

Symbols: N tokens of a micro-batch, S sequence length. A row is one operation with its shape, its
parameters, what it keeps for the backward pass and where it stands; everything else (time,
memory, FLOP) is computed from rows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["gemm", "attention", "vector"]
Segment = Literal["tower", "input", "block", "output"]
Axis = Literal["data", "context", "tensor", "expert", "expert_tensor"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """coefficient x tokens^tokens_power x seq^seq_power, tokens being those of a micro-batch."""

    coefficient: float
    tokens_power: float = 0.0
    seq_power: float = 0.0

    def at(self, tokens: float, seq: float) -> float:
        return float(self.coefficient * tokens**self.tokens_power * seq**self.seq_power)


ONE = Size(coefficient=1.0)
NOTHING = Size(coefficient=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """One row of the table.

    `op` names the measured curve or cost that prices it. A `gemm` is [m, k] x [k, n], `batch`
    times; `attention` is causal, m queries on n keys with k channels; a `vector` operation
    touches m rows of n elements. The row occurs in layers `first_layer` to `first_layer +
    repeat - 1` of the chain: 0 is the input, 1..L the blocks, L + 1 the output; rows stand in
    order of execution. Kinds of layers that alternate stand as if each kind's were together.

    `parameters` and `tensors` count one occurrence; a tied head has none of its own.
    Kept for the backward pass, by recompute level: `saved_elements` in the compute precision
    and `saved_bytes` whose type does not follow it. `working_elements` live only while the row
    runs. `boundary` is what a cut after this row would send, in elements. `divided_by` names
    the dimension that a parallel axis divides. `routed_fraction` of the tokens pass through.

    A gemm divided by "tensor" in n takes the whole input and gives a slice; divided in k it
    takes a slice and its result is summed over the tensor ranks. Rows of experts have the
    number of experts as `batch` and the mean tokens of one as `m`; "expert" divides their batch
    and "expert_tensor" their n or k. Attention is over all pairs where not `causal`, over the
    last `window` keys where it has one, and `kv_elements` are its keys and values, which a
    context-parallel rank needs from all others.
    """

    name: str
    kind: Kind
    op: str
    segment: Segment
    m: Size
    n: Size
    k: Size = ONE
    batch: Size = ONE
    first_layer: int
    repeat: int
    parameters: int = 0
    tensors: int = 0
    saved_elements: dict[str, Size] = field(default_factory=dict)
    saved_bytes: dict[str, Size] = field(default_factory=dict)
    working_elements: Size = NOTHING
    boundary: Size = NOTHING
    divided_by: dict[Axis, str] = field(default_factory=dict)
    trainable: bool = True
    routed_fraction: float = 1.0
    causal: bool = True
    window: int | None = None
    kv_elements: Size = NOTHING


def attended_keys(row: Operator, seq: float) -> float:
    """Mean keys that one query of an attention row attends to, at sequence length `seq`.

    Causal: n/2, the pairs on the diagonal counted half (Dao et al. 2022 and all utilisation
    figures since halve likewise). A causal window of w < n keys: n w - w^2/2 pairs, so
    w - w^2/(2 n) a query, which is n/2 at w = n. Not causal: all keys, or those of the window.
    """
    keys = row.n.at(1.0, seq)
    window = keys if row.window is None else min(float(row.window), keys)
    return window - window * window / (2.0 * keys) if row.causal else window


def flop_factor(row: Operator, seq: float) -> float:
    """Model FLOP, forward, of each unit of batch x m x n x k: this is the one place for it.

    gemm: 2, of the tokens routed through. Attention: two products, each 2 FLOP, on the attended
    share of the m x n scores. Lookups, norms and activations are no model FLOP (Narayanan et al.
    2021, appendix, with attention causal as it is).
    """
    if row.kind == "vector":
        return 0.0
    if row.kind == "attention":
        return 4.0 * attended_keys(row, seq) / row.n.at(1.0, seq)
    return 2.0 * row.routed_fraction


def forward_flop(row: Operator, tokens: float, seq: float) -> float:
    """Model FLOP of one occurrence, forward: matrix products and attended pairs only."""
    product = row.batch.at(tokens, seq) * row.m.at(tokens, seq) * row.n.at(tokens, seq)
    return flop_factor(row, seq) * product * row.k.at(tokens, seq)


def weight_copies(row: Operator) -> int:
    """How many weights of one shape an occurrence of a product holds: its experts, or one."""
    return int(row.batch.coefficient) if "expert" in row.divided_by else 1
