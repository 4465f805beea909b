"""The support matrix: which values of which lever an engine can express.

Nothing is stated here: every cell is the answer of the very rules that refuse an export, asked
about one lever's values in turn, on plans that have what the value needs (a pipeline for a
schedule, experts for their degrees).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from twofold.engines.export.form import Case, Engine
from twofold.engines.export.registry import ENGINES
from twofold.engines.serving import vllm_lack
from twofold.fleet import AcceleratorKind
from twofold.plan import Plan, Share, Stage
from twofold.serving_plan import PrefillPlan, ServingPlan
from twofold.sources.models import find_model
from twofold.workload import Recipe, Train

_DENSE = ("llama-3.1-8b", "gpt2-xl")
_SPARSE = ("mixtral-8x7b", "qwen3-30b-a3b")
_WORKLOAD = Train(tokens=10**9, seq_len=4096, recipe=Recipe(learning_rate=3e-4, global_batch=1024))


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One value of a lever, with what else a plan with it has."""

    label: str
    levers: dict[str, Any]
    device: AcceleratorKind | None = None
    sparse: bool = False


def _degrees(lever: str, **others: Any) -> tuple[Trial, ...]:
    return (Trial(label="> 1", levers={lever: 2, "data_degree": 8, **others}),)


def _words(lever: str, words: tuple[Any, ...], **others: Any) -> tuple[Trial, ...]:
    return tuple(Trial(label=str(word), levers={lever: word, **others}) for word in words)


_STAGES = tuple(Stage(pool="local", layers=layers) for layers in (18, 14))
_PIPELINE = {"pipeline_degree": 2, "data_degree": 8}

TRIALS: dict[str, tuple[Trial, ...]] = {
    "pool": (
        Trial(label="gpu", levers={}, device="gpu"),
        Trial(label="tpu", levers={}, device="tpu"),
        Trial(label="cpu", levers={}, device="cpu"),
    ),
    "data_degree": _degrees("data_degree"),
    "tensor_degree": _degrees("tensor_degree"),
    "pipeline_degree": _degrees("pipeline_degree"),
    "context_degree": _degrees("context_degree"),
    "expert_degree": tuple(replace(t, sparse=True) for t in _degrees("expert_degree")),
    "expert_tensor_degree": tuple(
        replace(t, sparse=True) for t in _degrees("expert_tensor_degree", tensor_degree=2)
    ),
    "sequence_parallel": _words("sequence_parallel", (True,), tensor_degree=2),
    "zero_stage": _words("zero_stage", (0, 1, 2, 3), data_degree=8),
    "shard_degree": (
        Trial(label="< data", levers={"shard_degree": 4, "data_degree": 8, "zero_stage": 1}),
        Trial(label="< data", levers={"shard_degree": 4, "data_degree": 8, "zero_stage": 3}),
    ),
    "schedule": (
        *_words("schedule", ("gpipe", "1f1b", "zb-h1"), **_PIPELINE),
        *_words("schedule", ("interleaved",), virtual_stages=2, **_PIPELINE),
    ),
    "virtual_stages": _degrees("virtual_stages", schedule="interleaved", pipeline_degree=2),
    "stages": (Trial(label="unequal", levers={"stages": _STAGES, **_PIPELINE}),),
    "micro_batch": _words("micro_batch", (1, 2), data_degree=8),
    "precision": (
        *_words("precision", ("fp32", "tf32", "bf16", "fp16", "mxfp8", "nvfp4")),
        Trial(label="fp8", levers={"precision": "fp8", "compile": True}),
        Trial(label="fp8", levers={"precision": "fp8"}),
    ),
    "attention": _words("attention", ("sdpa", "explicit")),
    "recompute": _words("recompute", ("none", "selective", "full")),
    "recompute_layers": (Trial(label="some", levers={"recompute": "full", "recompute_layers": 4}),),
    "offload": (
        *_words("offload", ("none",)),
        *_words("offload", ("optimizer",), zero_stage=1, data_degree=8),
    ),
    "compile": _words("compile", (False, True)),
    "threads": _words("threads", (1, 4)),
    "optimizer_kernel": _words("optimizer_kernel", ("loop", "foreach", "fused")),
    "shares": (
        Trial(
            label="unequal",
            levers={
                "data_degree": 2,
                "shares": (
                    Share(pool="local", ranks=1, sequences=640),
                    Share(pool="local", ranks=1, sequences=384),
                ),
            },
        ),
    ),
    "rebalance_steps": _words("rebalance_steps", (10,), data_degree=2),
    "local_steps": _words("local_steps", (10,), data_degree=2),
}
"""Levers of the optimizer that only Muon has, and of exchanges that only local steps have, are
left to those."""

SERVING_TRIALS: dict[str, tuple[Trial, ...]] = {
    "replicas": _words("replicas", (2,)),
    "tensor_degree": _words("tensor_degree", (2,)),
    "pipeline_degree": _words("pipeline_degree", (2,)),
    "attention_data_degree": _words("attention_data_degree", (2,), tensor_degree=4),
    "expert_degree": (
        Trial(label="all", levers={"expert_degree": 4, "tensor_degree": 4}),
        Trial(label="some", levers={"expert_degree": 2, "tensor_degree": 4}),
    ),
    "precision": _words("precision", ("fp32", "bf16", "fp16", "fp8")),
    "weight_precision": _words("weight_precision", ("same", "fp8")),
    "kv_precision": _words("kv_precision", ("same", "int8", "fp8")),
    "batching": _words("batching", ("continuous", "static")),
    "max_num_seqs": _words("max_num_seqs", (64,)),
    "max_batched_tokens": _words("max_batched_tokens", (1024,)),
    "chunked_prefill": _words("chunked_prefill", (True, False)),
    "prefix_caching": _words("prefix_caching", (True, False)),
    "block_tokens": _words("block_tokens", (8, 16, 24, 32, 64, 128)),
    "num_blocks": _words("num_blocks", (1000,)),
    "memory_fraction": _words("memory_fraction", (0.8,)),
    "prefill": (Trial(label="split", levers={"prefill": PrefillPlan(pool="other")}),),
}


def support(engine: Engine) -> dict[str, tuple[str, ...]]:
    """The values of every lever that the engine can express, of those tried."""
    return {
        lever: tuple(dict.fromkeys(t.label for t in trials if _accepts(engine, t)))
        for lever, trials in TRIALS.items()
    }


def serving_support() -> dict[str, tuple[str, ...]]:
    """The same of vLLM and the levers of serving plans."""
    base = ServingPlan(pool="gpu")
    return {
        lever: tuple(t.label for t in trials if vllm_lack(replace(base, **t.levers)) is None)
        for lever, trials in SERVING_TRIALS.items()
    }


def tried(trials: tuple[Trial, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(trial.label for trial in trials))


def support_matrix() -> dict[str, dict[str, tuple[str, ...]]]:
    """Of every engine for training."""
    return {name: support(engine) for name, engine in ENGINES.items()}


_model = cache(find_model)


def _accepts(engine: Engine, trial: Trial) -> bool:
    return any(engine.refusal(case) is None for case in cases(trial))


def cases(trial: Trial) -> Iterator[Case]:
    """Plans with the value, on models and devices that one engine or another asks for."""
    kinds: tuple[AcceleratorKind, ...] = ("gpu", "tpu", "cpu")
    devices = kinds if trial.device is None else (trial.device,)
    for name in _SPARSE if trial.sparse else _DENSE:
        for device in devices:
            base: dict[str, Any] = {
                "micro_batch": 1,
                "precision": "bf16",
                "optimizer_kernel": "fused",
            }
            plan = Plan(**base | trial.levers)
            yield Case(plan=plan, model=_model(name), workload=_WORKLOAD, device=device)
