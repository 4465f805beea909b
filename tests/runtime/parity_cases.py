"""Every layout whose training is compared with that of a single process."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from twofold.model import Model
from twofold.plan import Plan, Share
from twofold.workload import Recipe

SEQ_LEN = 32
STEPS = 20
RECIPE = Recipe(learning_rate=2e-3, global_batch=12, gradient_clip=0.5)
MUON = Recipe(
    learning_rate=5e-3, global_batch=12, optimizer="muon", adam_learning_rate=2e-3,
    gradient_clip=0.5,
)  # fmt: skip
MODERN = Model(
    name="modern", layers=4, hidden=32, heads=4, kv_heads=2, ffn=64, vocab=251, max_seq_len=64,
    norm="rmsnorm", activation="swiglu", position="rotary", qk_norm=True, bias=False,
    tied_embeddings=False, value_embeddings=1, logit_softcap=15.0,
)  # fmt: skip
GPT2 = Model(
    name="gpt2", layers=2, hidden=32, heads=4, kv_heads=4, ffn=64, vocab=256, max_seq_len=64,
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """Largest differences over 20 steps: of losses (nats), of gradient norms (relative), of the
    first step's gradients (relative to the largest of the tensor), of the last weights."""

    loss: float = 1e-5
    norm: float = 1e-4
    gradient: float = 1e-4
    weight: float = 1e-4


FP32 = Tolerance()
"""Sums are taken in another order, and Adam divides small gradients by their own size."""
BF16 = Tolerance(loss=2e-2, norm=1e-1, gradient=5e-2, weight=2e-2)
"""Products are rounded to 8 bits, and split products are rounded once for each part."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A layout to be compared. `shares_at` changes the data ranks' shares before a step.

    `planted`: losses are averaged over ranks instead of over sequences, which must be noticed.
    """

    name: str
    model: Model = MODERN
    recipe: Recipe = RECIPE
    tolerance: Tolerance = FP32
    plan: dict[str, Any] = field(default_factory=dict)
    shares_at: dict[int, tuple[int, ...]] = field(default_factory=dict)
    planted: bool = False

    def full_plan(self) -> Plan:
        return Plan(**({"micro_batch": self.recipe.global_batch, "threads": 1} | self.plan))

    def reference(self) -> Case:
        """The same training in one process."""
        precision = self.full_plan().precision
        name = f"{self.model.name} {self.recipe.optimizer} {precision} in one process"
        return replace(self, name=name, plan={"precision": precision}, shares_at={}, planted=False)


def shares(*sequences: int) -> tuple[Share, ...]:
    return tuple(Share(pool=f"p{i}", ranks=1, sequences=s) for i, s in enumerate(sequences))


DATA: tuple[Case, ...] = (
    Case(name="data 2", plan={"data_degree": 2, "micro_batch": 3}),
    Case(name="data 2, bf16", plan={"data_degree": 2, "precision": "bf16"}, tolerance=BF16),
    Case(name="data 2, Muon", recipe=MUON, plan={"data_degree": 2}),
    Case(
        name="data 2, shares 9 and 3",
        plan={"data_degree": 2, "shares": shares(9, 3), "micro_batch": 5},
    ),
    Case(
        name="data 2, shares that change",
        plan={"data_degree": 2, "shares": shares(9, 3), "micro_batch": 5},
        shares_at={5: (4, 8), 12: (7, 5)},
    ),
    Case(name="data 4", model=GPT2, plan={"data_degree": 4, "micro_batch": 2}),
    Case(
        name="data 4, shares 5, 4, 2 and 1",
        plan={"data_degree": 4, "shares": shares(5, 4, 2, 1), "micro_batch": 5},
    ),
)

SHARDED: tuple[Case, ...] = (
    Case(name="ZeRO 1, data 2", plan={"data_degree": 2, "zero_stage": 1, "micro_batch": 2}),
    Case(name="ZeRO 2, data 2", plan={"data_degree": 2, "zero_stage": 2, "micro_batch": 2}),
    Case(name="ZeRO 3, data 2", plan={"data_degree": 2, "zero_stage": 3, "micro_batch": 2}),
    Case(
        name="ZeRO 3, data 2, tied table",
        model=GPT2,
        plan={"data_degree": 2, "zero_stage": 3, "micro_batch": 3},
    ),
    Case(
        name="ZeRO 3, data 2, shares 8 and 4, recomputed",
        plan={
            "data_degree": 2,
            "zero_stage": 3,
            "shares": shares(8, 4),
            "micro_batch": 3,
            "recompute": "full",
        },
    ),
    Case(
        name="ZeRO 2, data 2, shares that change",
        plan={"data_degree": 2, "zero_stage": 2, "shares": shares(8, 4), "micro_batch": 4},
        shares_at={5: (3, 9), 12: (7, 5)},
    ),
    Case(name="ZeRO 3, data 2, Muon", recipe=MUON, plan={"data_degree": 2, "zero_stage": 3}),
    Case(
        name="ZeRO 3, data 2, bf16",
        plan={"data_degree": 2, "zero_stage": 3, "precision": "bf16"},
        tolerance=BF16,
    ),
    Case(name="ZeRO 1, data 4", plan={"data_degree": 4, "zero_stage": 1, "micro_batch": 2}),
    Case(
        name="ZeRO 3 over 2 of data 4 (HSDP)",
        plan={"data_degree": 4, "zero_stage": 3, "shard_degree": 2, "micro_batch": 2},
    ),
    Case(
        name="ZeRO 1 over 2 of data 4 (HSDP), shares 5, 4, 2 and 1",
        plan={
            "data_degree": 4,
            "zero_stage": 1,
            "shard_degree": 2,
            "micro_batch": 5,
            "shares": shares(5, 4, 2, 1),
        },
    ),
)

TENSOR: tuple[Case, ...] = (
    Case(name="tensor 2", plan={"tensor_degree": 2, "micro_batch": 6}),
    Case(name="tensor 2, tied table", model=GPT2, plan={"tensor_degree": 2}),
    Case(name="tensor 2, sequence", plan={"tensor_degree": 2, "sequence_parallel": True}),
    Case(
        name="tensor 2, sequence, learned positions, foreach",
        model=GPT2,
        plan={"tensor_degree": 2, "sequence_parallel": True, "optimizer_kernel": "foreach"},
    ),
    Case(name="tensor 2, Muon", recipe=MUON, plan={"tensor_degree": 2}),
    Case(
        name="tensor 2, sequence, recomputed, fused",
        plan={
            "tensor_degree": 2,
            "sequence_parallel": True,
            "recompute": "full",
            "optimizer_kernel": "fused",
        },
    ),
    Case(name="tensor 2, bf16", plan={"tensor_degree": 2, "precision": "bf16"}, tolerance=BF16),
    Case(
        name="tensor 2 x data 2, shares 8 and 4",
        plan={"tensor_degree": 2, "data_degree": 2, "shares": shares(8, 4), "micro_batch": 4},
    ),
    Case(
        name="tensor 2 x data 2, sequence, learned positions",
        model=GPT2,
        plan={"tensor_degree": 2, "data_degree": 2, "sequence_parallel": True},
    ),
    Case(
        name="tensor 2 x data 2, ZeRO 3, sequence, shares 8 and 4",
        plan={
            "tensor_degree": 2,
            "data_degree": 2,
            "zero_stage": 3,
            "sequence_parallel": True,
            "shares": shares(8, 4),
            "micro_batch": 4,
        },
    ),
    Case(
        name="tensor 2 x data 2, ZeRO 1, Muon",
        recipe=MUON,
        plan={"tensor_degree": 2, "data_degree": 2, "zero_stage": 1, "micro_batch": 3},
    ),
    Case(name="tensor 4", model=GPT2, plan={"tensor_degree": 4, "sequence_parallel": True}),
    Case(
        name="tensor 2 x data 4, ZeRO 3 over 2 of 4 (HSDP), sequence",
        plan={
            "tensor_degree": 2,
            "data_degree": 4,
            "zero_stage": 3,
            "shard_degree": 2,
            "sequence_parallel": True,
            "micro_batch": 2,
        },
    ),
    Case(
        name="data 8, ZeRO 2, shares 3, 2, 2, 1, 1, 1, 1 and 1",
        plan={
            "data_degree": 8,
            "zero_stage": 2,
            "micro_batch": 3,
            "shares": shares(3, 2, 2, 1, 1, 1, 1, 1),
        },
    ),
)

CASES: tuple[Case, ...] = (*DATA, *SHARDED, *TENSOR)

PLANTED = (
    Case(
        name="planted: mean over ranks, shares 9 and 3",
        plan={"data_degree": 2, "shares": shares(9, 3), "micro_batch": 5},
        planted=True,
    ),
    Case(
        name="planted: mean over ranks, ZeRO 3, shares 9 and 3",
        plan={"data_degree": 2, "zero_stage": 3, "shares": shares(9, 3), "micro_batch": 5},
        planted=True,
    ),
)
