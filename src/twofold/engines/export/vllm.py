"""vLLM: `vllm serve` with its arguments, and back."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from twofold.engines.export.form import Files
from twofold.engines.export.shell import LAUNCH, comment, number, read_arguments, required
from twofold.engines.serving import Flag, vllm_flags
from twofold.errors import InputError
from twofold.serving_document import ServingDocument
from twofold.serving_plan import ServingPlan

ENGINE_NAME = "vllm"
VLLM_VERSION = "0.32.0"
_PRECISIONS = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}
IGNORES = {"compile": "vLLM compiles and captures graphs as it sees fit"}


def serving_files(document: ServingDocument) -> Files:
    """`launch.sh` for one replica, or for all where vLLM starts them itself."""
    plan = document.plan
    if plan.attention_data_degree > 1 and document.model.experts is None:
        raise InputError(
            f"vLLM's {plan.attention_data_degree} attention groups of a model without experts are "
            "whole copies",
            at="plan, attention_data_degree",
            help="plan with attention_data_degree 1 and more replicas",
        )
    model, *flags = vllm_flags(document)
    by_hand = plan.replicas > 1 and not any(flag.comes_from == "replicas" for flag in flags)
    lines = [
        "#!/bin/bash",
        f"# {document.model.name}: {plan.num_devices} devices of '{plan.pool}'",
        "set -euo pipefail",
        f"export OMP_NUM_THREADS={plan.threads}  # plan, threads",
        f"replicas={plan.replicas if by_hand else 1}"
        "  # plan, replicas: start this so many times, behind a load balancer",
        "arguments=(",
        *(f"  {flag.words}{_comment(flag)}" for flag in flags),
        ")",
        f'exec vllm serve {model.words} "${{arguments[@]}}" "$@"',
        "",
    ]
    return {LAUNCH: "\n".join(lines)}


def serving_levers(files: Mapping[str, str]) -> ServingPlan:
    """The levers that the arguments state. vLLM's fp8 is read as fp8 products, which its weights
    then have too."""
    text = files[LAUNCH]
    read = read_arguments(text)
    by_hand = re.search(r"^replicas=(\d+)", text, re.MULTILINE)
    tensor, parallel = (
        number(read, "--tensor-parallel-size"),
        number(read, "--data-parallel-size", 1),
    )
    spread = "--enable-expert-parallel" in read
    groups = parallel if spread else 1
    return ServingPlan(
        replicas=(1 if spread else parallel) * int(by_hand[1] if by_hand else 1),
        tensor_degree=tensor * groups,
        attention_data_degree=groups,
        pipeline_degree=number(read, "--pipeline-parallel-size", 1),
        expert_degree=tensor * groups if spread else 1,
        precision=_precision(read),
        kv_precision="fp8" if read.get("--kv-cache-dtype") == "fp8" else "same",
        max_num_seqs=number(read, "--max-num-seqs"),
        max_batched_tokens=number(read, "--max-num-batched-tokens"),
        chunked_prefill="--enable-chunked-prefill" in read,
        prefix_caching="--enable-prefix-caching" in read,
        block_tokens=number(read, "--block-size"),
        num_blocks=number(read, "--num-gpu-blocks-override", 0),
        memory_fraction=float(required(read, "--gpu-memory-utilization")),
        threads=number(read, "$OMP_NUM_THREADS", 1),
    )


def _precision(read: Mapping[str, Any]) -> Any:
    if read.get("--quantization") == "fp8":
        return "fp8"
    return _PRECISIONS[required(dict(read), "--dtype")]


def _comment(flag: Flag) -> str:
    return comment(f"plan, {flag.comes_from}")
