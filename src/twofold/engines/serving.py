"""A serving plan into a Job of the embedded engine, or into the vLLM command for a fleet."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from twofold.errors import InputError
from twofold.launch import Job
from twofold.serving_document import ServingDocument, write_serving_plan
from twofold.serving_plan import ServingPlan
from twofold.sources.models import hub_id

LOCAL = "local"


def serving_job(
    document: ServingDocument,
    folder: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    max_queue: int | None = None,
    step_log: Path | None = None,
) -> Job:
    """A process that serves the plan until SIGTERM. Writes `serve.json` into the folder; when it
    listens, the job's log has a line `{"event": "listening", "url": ...}`. `step_log` gets a JSON
    line for every step: what it held and its time."""
    path = folder / "serve.json"
    write_serving_plan(document, path)
    return Job(
        name=folder.name,
        argv=serving_argv(path, host=host, port=port, max_queue=max_queue, step_log=step_log),
        folder=folder,
        environment={"OMP_NUM_THREADS": str(document.plan.threads)},
    )


def serving_argv(
    path: Path,
    *,
    host: str,
    port: int,
    max_queue: int | None = None,
    step_log: Path | None = None,
) -> tuple[str, ...]:
    argv = [sys.executable, "-m", "twofold.runtime.serve", str(path)]
    argv += ["--host", host, "--port", str(port)]
    if max_queue is not None:
        argv += ["--max-queue", str(max_queue)]
    if step_log is not None:
        argv += ["--step-log", str(step_log)]
    return tuple(argv)


def is_local(document: ServingDocument) -> bool:
    """Whether the plan is for this machine."""
    return document.plan.pool == LOCAL and document.plan.prefill is None


class Flag(NamedTuple):
    """One argument of a command, and the field of the plan that it comes from."""

    words: str
    comes_from: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rule:
    lever: str
    refuses: Callable[[ServingPlan], bool]
    what: str
    help: str


_DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32", "fp8": "bfloat16"}
"""Of activations."""

_VLLM_CANNOT = (
    _Rule(
        lever="batching",
        refuses=lambda plan: plan.batching != "continuous",
        what="vLLM batches continuously, and the plan says '{plan.batching}'",
        help="plan with continuous batching",
    ),
    _Rule(
        lever="prefill",
        refuses=lambda plan: plan.prefill is not None,
        what="vLLM's `serve` alone does not split prefill and decode over pools: it takes a proxy "
        "and a KV connector for your fabric",
        help="serve a plan that is not split, or set up vLLM's disaggregated prefilling by hand",
    ),
    _Rule(
        lever="kv_precision",
        refuses=lambda plan: plan.kv_precision not in ("same", "fp8"),
        what="vLLM does not keep keys and values in {plan.kv_precision}",
        help="plan with --precision kv-fp8, or leave keys and values as the products are",
    ),
    _Rule(
        lever="block_tokens",
        refuses=lambda plan: plan.block_tokens not in (1, 8, 16, 32, 64, 128, 256),
        what="vLLM has blocks of 1, 8, 16, 32, 64, 128 or 256 tokens, not {plan.block_tokens}",
        help="plan with block_tokens 16",
    ),
    _Rule(
        lever="expert_degree",
        refuses=lambda plan: plan.expert_degree not in (1, plan.tensor_degree),
        what="vLLM spreads experts over all {plan.tensor_degree} devices of a replica or over "
        "none, not over {plan.expert_degree}",
        help="plan with expert_degree 1 or as the tensor degree",
    ),
)


def vllm_lack(plan: ServingPlan) -> InputError | None:
    """What vLLM cannot express of the plan, whatever the weights; None where it can."""
    for rule in _VLLM_CANNOT:
        if rule.refuses(plan):
            return InputError(rule.what.format(plan=plan), at=f"plan, {rule.lever}", help=rule.help)
    return None


def vllm_flags(document: ServingDocument) -> list[Flag]:
    """The arguments of `vllm serve`, model first. InputError names what it cannot express, or the
    format that the weights must be stored in.

    DP attention: vLLM runs d engines of tensor / d devices each, whose experts are joined. Its fp8
    quantises weights while it loads, and multiplies in fp8 where the device can.
    """
    plan, model = document.plan, document.model
    lack, stored = vllm_lack(plan), _stored_format(plan)
    if lack is not None:
        raise lack
    if stored is not None and document.weights is None:
        raise InputError(
            f"vLLM quantises to fp8 alone while it loads: weights in {stored} must be stored so",
            at="--weights",
            help=f"plan with --weights, a folder or a name on the hub of weights in {stored}",
        )
    groups = plan.attention_data_degree
    flags = [
        Flag(shlex.quote(document.weights or hub_id(model.name) or model.name), "weights"),
        Flag(f"--dtype {_DTYPES.get(plan.precision, 'bfloat16')}", "precision"),
        Flag(f"--tensor-parallel-size {plan.tensor_degree // groups}", "tensor_degree"),
        Flag(f"--max-num-seqs {plan.max_num_seqs}", "max_num_seqs"),
        Flag(f"--max-num-batched-tokens {plan.max_batched_tokens}", "max_batched_tokens"),
        Flag(f"--block-size {plan.block_tokens}", "block_tokens"),
        Flag(f"--gpu-memory-utilization {plan.memory_fraction:g}", "memory_fraction"),
        Flag(f"--{_no(plan.chunked_prefill)}enable-chunked-prefill", "chunked_prefill"),
        Flag(f"--{_no(plan.prefix_caching)}enable-prefix-caching", "prefix_caching"),
    ]
    if plan.pipeline_degree > 1:
        flags.append(Flag(f"--pipeline-parallel-size {plan.pipeline_degree}", "pipeline_degree"))
    if plan.replicas > 1 and not _is_started_often(document):
        flags.append(Flag(f"--data-parallel-size {plan.replicas}", "replicas"))
    if groups > 1:
        flags.append(Flag(f"--data-parallel-size {groups}", "attention_data_degree"))
    if plan.expert_degree > 1 or (groups > 1 and model.experts is not None):
        flags.append(Flag("--enable-expert-parallel", "expert_degree"))
    if "fp8" in (plan.precision, plan.weight_precision):
        lever = "precision" if plan.precision == "fp8" else "weight_precision"
        flags.append(Flag("--quantization fp8", lever))
    if plan.kv_precision == "fp8":
        flags.append(Flag("--kv-cache-dtype fp8", "kv_precision"))
    if plan.num_blocks:
        flags.append(Flag(f"--num-gpu-blocks-override {plan.num_blocks}", "num_blocks"))
    return flags


def vllm_command(document: ServingDocument) -> str:
    """The command to paste, and after it what each argument comes from.

    Graphs and compilation stay at vLLM's defaults.
    """
    flags = vllm_flags(document)
    words = " \\\n  ".join(flag.words for flag in flags)
    width = max(len(flag.words) for flag in flags)
    origins = [f"# {flag.words:<{width}}  plan, {flag.comes_from}" for flag in flags[1:]]
    lines = [f"vllm serve {words}", "", *origins]
    stored = _stored_format(document.plan)
    if stored is not None:
        lines.append(f"# the weights must be stored in {stored}: vLLM reads that in their config")
    if _is_started_often(document):
        lines.append(
            f"# start it {document.plan.replicas} times behind a load balancer, on "
            f"{document.plan.replica_devices} devices each  plan, replicas"
        )
    return "\n".join(lines)


def _is_started_often(document: ServingDocument) -> bool:
    """Data-parallel engines share the experts, and are the groups of DP attention: whole copies
    beside that are commands of their own."""
    plan = document.plan
    shares = document.model.experts is not None or plan.attention_data_degree > 1
    return plan.replicas > 1 and shares


def _stored_format(plan: ServingPlan) -> str | None:
    """Of weights that vLLM does not quantise while it loads."""
    if plan.weight_precision not in ("same", "fp8"):
        return plan.weight_precision
    return None if plan.precision in _DTYPES else plan.precision


def _no(flag: bool) -> str:
    return "" if flag else "no-"
