"""Every layout whose training is compared with that of a single process."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from twofold.model import Experts, Model
from twofold.plan import Plan, Share, Stage
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
MIXTURE = replace(
    MODERN, name="mixture",
    experts=Experts(count=4, top_k=2, ffn=32, shared_ffn=16, first_layer=1, router_bias=True),
)  # fmt: skip
SWITCH = replace(GPT2, name="switch", experts=Experts(count=4, top_k=1, ffn=64, every=2, bias=True))

Planted = Literal["mean over ranks", "positions from the start", "unlike experts summed"]
"""Mistakes that must be noticed: losses averaged over ranks instead of over sequences, positions
that start anew on every context rank, gradients of experts summed over ranks that hold others."""


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
class Throttle:
    """From a step on a rank takes so much longer for each sequence."""

    rank: int
    from_step: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A layout to be compared. `shares_at` changes the data ranks' shares before a step."""

    name: str
    model: Model = MODERN
    recipe: Recipe = RECIPE
    tolerance: Tolerance = FP32
    plan: dict[str, Any] = field(default_factory=dict)
    shares_at: dict[int, tuple[int, ...]] = field(default_factory=dict)
    throttle: Throttle | None = None
    planted: Planted | None = None

    def full_plan(self) -> Plan:
        usual = {
            "micro_batch": self.recipe.global_batch,
            "threads": 1,
            "orthogonal_precision": "fp32",
        }
        return Plan(**(usual | self.plan))

    def reference(self) -> Case:
        """The same training in one process."""
        precision = self.full_plan().precision
        name = f"{self.model.name} {self.recipe.optimizer} {precision} in one process"
        return replace(
            self,
            name=name,
            plan={"precision": precision},
            shares_at={},
            throttle=None,
            planted=None,
        )


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
    Case(
        name="ZeRO 3, data 2, Muon",
        recipe=MUON,
        plan={"data_degree": 2, "zero_stage": 3},
    ),
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

PIPELINE: tuple[Case, ...] = (
    Case(name="pipeline 2", plan={"pipeline_degree": 2, "micro_batch": 3}),
    Case(
        name="pipeline 2, tied table",
        model=GPT2,
        plan={"pipeline_degree": 2, "micro_batch": 3},
    ),
    Case(
        name="pipeline 2, GPipe, recomputed",
        plan={
            "pipeline_degree": 2,
            "schedule": "gpipe",
            "micro_batch": 4,
            "recompute": "full",
        },
    ),
    Case(
        name="pipeline 2, micro-batches of 5, 5 and 2",
        plan={"pipeline_degree": 2, "schedule": "interleaved", "micro_batch": 5},
    ),
    Case(
        name="pipeline 2, interleaved",
        plan={
            "pipeline_degree": 2,
            "schedule": "interleaved",
            "virtual_stages": 2,
            "micro_batch": 2,
        },
    ),
    Case(
        name="pipeline 2, zero-bubble",
        plan={"pipeline_degree": 2, "schedule": "zb-h1", "micro_batch": 2},
    ),
    Case(
        name="pipeline 2, zero-bubble, recomputed",
        plan={
            "pipeline_degree": 2,
            "schedule": "zb-h1",
            "micro_batch": 3,
            "recompute": "full",
        },
    ),
    Case(
        name="experts, pipeline 2, micro-batches of 4, 4 and 4",
        model=MIXTURE,
        plan={"pipeline_degree": 2, "micro_batch": 5},
    ),
    Case(
        name="pipeline 2, stages of 3 and 1 layers, Muon",
        recipe=MUON,
        plan={
            "pipeline_degree": 2,
            "stages": (Stage(pool="a", layers=3), Stage(pool="b", layers=1)),
            "micro_batch": 3,
        },
    ),
    Case(
        name="pipeline 2, bf16",
        plan={"pipeline_degree": 2, "precision": "bf16", "micro_batch": 3},
        tolerance=BF16,
    ),
    Case(name="pipeline 4", plan={"pipeline_degree": 4, "micro_batch": 2}),
    Case(
        name="pipeline 4, zero-bubble",
        plan={"pipeline_degree": 4, "schedule": "zb-h1", "micro_batch": 1},
    ),
    Case(
        name="pipeline 2 x data 2",
        plan={"pipeline_degree": 2, "data_degree": 2, "micro_batch": 2},
    ),
    Case(
        name="pipeline 2 x data 2, shares 7 and 5, tied table",
        model=GPT2,
        plan={
            "pipeline_degree": 2,
            "data_degree": 2,
            "shares": shares(7, 5),
            "micro_batch": 2,
        },
    ),
    Case(
        name="pipeline 2 x data 2, interleaved, shares that change",
        plan={
            "pipeline_degree": 2,
            "data_degree": 2,
            "schedule": "interleaved",
            "virtual_stages": 2,
            "shares": shares(9, 3),
            "micro_batch": 3,
        },
        shares_at={5: (4, 8), 12: (7, 5)},
    ),
    Case(
        name="pipeline 2 x tensor 2, sequence",
        plan={
            "pipeline_degree": 2,
            "tensor_degree": 2,
            "sequence_parallel": True,
            "micro_batch": 3,
        },
    ),
    Case(
        name="pipeline 2 x tensor 2 x data 2, sequence, shares 8 and 4",
        plan={
            "pipeline_degree": 2,
            "tensor_degree": 2,
            "data_degree": 2,
            "sequence_parallel": True,
            "shares": shares(8, 4),
            "micro_batch": 3,
        },
    ),
    Case(
        name="pipeline 2 x context 2, interleaved",
        plan={
            "pipeline_degree": 2,
            "context_degree": 2,
            "schedule": "interleaved",
            "virtual_stages": 2,
            "micro_batch": 5,
        },
    ),
    Case(
        name="pipeline 2 x context 2, learned positions, tied table",
        model=GPT2,
        plan={"pipeline_degree": 2, "context_degree": 2, "micro_batch": 3},
    ),
    Case(
        name="expert 2 of data 2 x pipeline 2, shares 8 and 4",
        model=MIXTURE,
        plan={
            "pipeline_degree": 2,
            "data_degree": 2,
            "expert_degree": 2,
            "shares": shares(8, 4),
            "micro_batch": 3,
        },
    ),
    Case(
        name="pipeline 2 x tensor 2, tied table, zero-bubble",
        model=GPT2,
        plan={
            "pipeline_degree": 2,
            "tensor_degree": 2,
            "schedule": "zb-h1",
            "micro_batch": 3,
        },
    ),
)  # fmt: skip

CONTEXT: tuple[Case, ...] = (
    Case(name="context 2", plan={"context_degree": 2, "micro_batch": 6}),
    Case(name="context 2, learned positions", model=GPT2, plan={"context_degree": 2}),
    Case(
        name="context 2, explicit attention, recomputed",
        plan={"context_degree": 2, "attention": "explicit", "recompute": "full"},
    ),
    Case(
        name="context 2, bf16",
        plan={"context_degree": 2, "precision": "bf16"},
        tolerance=BF16,
    ),
    Case(name="context 4", plan={"context_degree": 4}),
    Case(
        name="context 2 x data 2, shares 9 and 3",
        plan={"context_degree": 2, "data_degree": 2, "shares": shares(9, 3), "micro_batch": 5},
    ),
    Case(
        name="context 2 x data 2, ZeRO 3",
        plan={"context_degree": 2, "data_degree": 2, "zero_stage": 3, "micro_batch": 3},
    ),
    Case(name="context 2 x tensor 2", plan={"context_degree": 2, "tensor_degree": 2}),
    Case(
        name="context 2 x tensor 2, learned positions, tied table",
        model=GPT2,
        plan={"context_degree": 2, "tensor_degree": 2, "micro_batch": 4},
    ),
)

EXPERTS: tuple[Case, ...] = (
    Case(name="experts, data 2", model=MIXTURE, plan={"data_degree": 2, "micro_batch": 3}),
    Case(
        name="experts, ZeRO 3, data 2, shares 8 and 4",
        model=MIXTURE,
        plan={"data_degree": 2, "zero_stage": 3, "shares": shares(8, 4), "micro_batch": 4},
    ),
    Case(name="experts, tensor 2", model=MIXTURE, plan={"tensor_degree": 2}),
    Case(
        name="expert 2 of data 2",
        model=MIXTURE,
        plan={"data_degree": 2, "expert_degree": 2, "micro_batch": 3},
    ),
    Case(
        name="expert 2 of data 2, one expert a token, fused, recomputed",
        model=SWITCH,
        plan={
            "data_degree": 2,
            "expert_degree": 2,
            "optimizer_kernel": "fused",
            "recompute": "full",
        },
    ),
    Case(
        name="expert 2 of data 2, shares 9 and 3",
        model=MIXTURE,
        plan={"data_degree": 2, "expert_degree": 2, "shares": shares(9, 3), "micro_batch": 5},
    ),
    Case(
        name="expert 2 of data 2, Muon",
        model=MIXTURE,
        recipe=MUON,
        plan={"data_degree": 2, "expert_degree": 2},
    ),
    Case(
        name="expert 2 of context 2",
        model=MIXTURE,
        plan={"context_degree": 2, "expert_degree": 2},
    ),
    Case(
        name="expert 4 of data 4",
        model=MIXTURE,
        plan={"data_degree": 4, "expert_degree": 4, "micro_batch": 3},
    ),
    Case(
        name="expert 2 of data 4, shares 5, 4, 2 and 1",
        model=MIXTURE,
        plan={
            "data_degree": 4,
            "expert_degree": 2,
            "shares": shares(5, 4, 2, 1),
            "micro_batch": 5,
        },
    ),
    Case(
        name="expert 4 of data 2 x context 2",
        model=MIXTURE,
        plan={"data_degree": 2, "context_degree": 2, "expert_degree": 4, "micro_batch": 6},
    ),
    Case(
        name="expert 2 of data 2 x tensor 2",
        model=MIXTURE,
        plan={"data_degree": 2, "tensor_degree": 2, "expert_degree": 2, "micro_batch": 6},
    ),
)

REBALANCED: tuple[Case, ...] = (
    Case(
        name="data 2, one throttled in mid-run, rebalanced",
        plan={"data_degree": 2, "micro_batch": 6, "rebalance_steps": 4},
        throttle=Throttle(rank=1, from_step=5, seconds=0.1),
    ),
    Case(
        name="ZeRO 3, data 2, one throttled in mid-run, rebalanced",
        plan={"data_degree": 2, "zero_stage": 3, "micro_batch": 6, "rebalance_steps": 4},
        throttle=Throttle(rank=1, from_step=5, seconds=0.1),
    ),
)

CASES: tuple[Case, ...] = (
    *DATA,
    *SHARDED,
    *REBALANCED,
    *TENSOR,
    *PIPELINE,
    *CONTEXT,
    *EXPERTS,
)

IN_CI = frozenset(
    {
        "ZeRO 2, data 2, shares that change",
        "ZeRO 3, data 2",
        "ZeRO 1 over 2 of data 4 (HSDP), shares 5, 4, 2 and 1",
        *(case.name for case in REBALANCED),
        "tensor 2 x data 2, ZeRO 3, sequence, shares 8 and 4",
        "pipeline 2, interleaved",
        "pipeline 2, zero-bubble",
        "pipeline 2 x data 2, shares 7 and 5, tied table",
        "pipeline 2 x tensor 2, sequence",
        "context 2 x data 2, ZeRO 3",
        "expert 2 of data 4, shares 5, 4, 2 and 1",
        "expert 2 of data 2 x pipeline 2, shares 8 and 4",
    }
)
"""Every axis and its main combinations; the other cases are compared by `make verify`."""

PLANTED = (
    Case(
        name="planted: mean over ranks, shares 9 and 3",
        plan={"data_degree": 2, "shares": shares(9, 3), "micro_batch": 5},
        planted="mean over ranks",
    ),
    Case(
        name="planted: mean over ranks, ZeRO 3, shares 9 and 3",
        plan={"data_degree": 2, "zero_stage": 3, "shares": shares(9, 3), "micro_batch": 5},
        planted="mean over ranks",
    ),
    Case(
        name="planted: positions from the start, context 2",
        plan={"context_degree": 2},
        planted="positions from the start",
    ),
    Case(
        name="planted: unlike experts summed, expert 2 of data 4",
        model=MIXTURE,
        plan={"data_degree": 4, "expert_degree": 2, "micro_batch": 3},
        planted="unlike experts summed",
    ),
)
