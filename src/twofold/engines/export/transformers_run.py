"""What accelerate and DeepSpeed have in common: a network of transformers and a training script."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from twofold.engines.export.form import Case, Files, Lack, Setting
from twofold.engines.export.huggingface import huggingface_config
from twofold.engines.export.refusals import EVERYWHERE, NO_PIPELINE, at_most, only
from twofold.engines.export.shell import number, required

_ATTENTION = {"sdpa": "sdpa", "explicit": "eager"}

LACKS: tuple[Lack, ...] = (
    *EVERYWHERE,
    Lack(
        lever="pool",
        refuses=lambda case: case.device not in ("cpu", "gpu"),
        what="the export to {engine} is for GPUs and processors, and the plan for another device",
        help="plan for such, or export to maxtext (TPU)",
    ),
    at_most("tensor_degree", 1, "plan with tensor_degree 1, or export to megatron or torchtitan"),
    *NO_PIPELINE,
    at_most("context_degree", 1, "plan with context_degree 1, or export to megatron or torchtitan"),
    at_most("expert_degree", 1, "plan with expert_degree 1, or export to megatron or torchtitan"),
    at_most("expert_tensor_degree", 1, "plan with expert_tensor_degree 1"),
    only("recompute", ("none", "full"), "plan with recompute 'none' or 'full'"),
    Lack(
        lever="recompute_layers",
        refuses=lambda case: case.plan.recompute_layers is not None,
        what="{engine} recomputes all {model.layers} layers or none, not {plan.recompute_layers}",
        help="leave recompute_layers out, or export to megatron",
    ),
    only("precision", ("fp32", "tf32", "bf16", "fp16"), "plan in bf16"),
)


def network_files(case: Case, script: str) -> Files:
    """`config.json`, the script and its helper."""
    config = huggingface_config(case.model, attention=_ATTENTION[case.plan.attention])
    folder = files("twofold.engines.export") / "scripts"
    return {
        "config.json": json.dumps(config, indent=1) + "\n",
        "train.py": (folder / f"{script}.py.txt").read_text(encoding="utf-8"),
        "batches.py": (folder / "batches.py.txt").read_text(encoding="utf-8"),
    }


def script_arguments(case: Case) -> list[Setting]:
    """What the script takes, beside what the engine's own file says."""
    plan, workload, recipe = case.plan, case.workload, case.workload.recipe
    arguments = [
        Setting("--processes", plan.num_ranks, "plan, data_degree"),
        Setting("--threads", plan.threads, "plan, threads"),
        Setting("--micro-batch", plan.micro_batch, "plan, micro_batch"),
        Setting("--accumulation", case.accumulation, "global_batch / (micro_batch x data_degree)"),
        Setting("--attention", _ATTENTION[plan.attention], "plan, attention"),
        Setting("--recompute", plan.recompute, "plan, recompute"),
        Setting("--optimizer-kernel", plan.optimizer_kernel, "plan, optimizer_kernel"),
        Setting(
            "--matmul-precision", "high" if plan.precision == "tf32" else "highest",
            "plan, precision",
        ),
        Setting("--seq-len", workload.seq_len, "workload, seq_len"),
        Setting("--steps", workload.num_steps, "workload, tokens"),
        Setting("--seed", case.seed, "seed"),
        Setting("--learning-rate", recipe.learning_rate, "recipe, learning_rate"),
        Setting("--beta1", recipe.beta1, "recipe, beta1"),
        Setting("--beta2", recipe.beta2, "recipe, beta2"),
        Setting("--weight-decay", recipe.weight_decay, "recipe, weight_decay"),
        Setting("--gradient-clip", recipe.gradient_clip, "recipe, gradient_clip"),
        Setting("--schedule", recipe.schedule, "recipe, schedule"),
        Setting("--warmup-fraction", recipe.warmup_fraction, "recipe, warmup_fraction"),
        Setting("--decay-fraction", recipe.decay_fraction, "recipe, decay_fraction"),
        Setting(
            "--final-fraction", recipe.final_learning_rate_fraction,
            "recipe, final_learning_rate_fraction",
        ),
    ]  # fmt: skip
    if case.tokens is not None:
        arguments.append(Setting("--tokens", case.tokens, "workload, text"))
        arguments.append(Setting("--token-dtype", case.token_dtype, "workload, text"))
    return arguments


def script_levers(read: Mapping[str, Any]) -> dict[str, Any]:
    """The levers that the arguments carry."""
    arguments = dict(read)
    attention = {word: lever for lever, word in _ATTENTION.items()}
    return {
        "data_degree": number(arguments, "nodes") * number(arguments, "processes"),
        "threads": number(arguments, "$OMP_NUM_THREADS"),
        "micro_batch": number(arguments, "--micro-batch"),
        "attention": attention[required(arguments, "--attention")],
        "recompute": required(arguments, "--recompute"),
        "optimizer_kernel": required(arguments, "--optimizer-kernel"),
    }
