"""A serving plan as a job, and as vLLM's command: every lever is a flag, or refused by name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.fleets import plain_fleet
from twofold.engines.serving import (
    is_local,
    serving_job,
    vllm_command,
    vllm_flags,
    vllm_lack,
)
from twofold.errors import InputError
from twofold.model import Experts, Model
from twofold.serving_document import ServingDocument, make_serving_document, read_serving_plan
from twofold.serving_plan import PrefillPlan, ServingPlan
from twofold.sources.models import find_model
from twofold.workload.serve import Arrivals, Lengths, Serve

MODEL = Model(
    name="meta-llama/Llama-3.3-70B", layers=4, hidden=64, heads=8, kv_heads=8, ffn=64, vocab=256,
    max_seq_len=512,
)  # fmt: skip
EXPERTS = Model(
    name="experts", layers=4, hidden=64, heads=8, kv_heads=8, ffn=64, vocab=256, max_seq_len=512,
    experts=Experts(count=8, top_k=2, ffn=64),
)  # fmt: skip


def document(model: Model = MODEL, **plan: Any) -> ServingDocument:
    return make_serving_document(
        model=model,
        workload=Serve(
            arrivals=Arrivals(rate_per_s=1.0), input=Lengths(mean=32), output=Lengths(mean=16)
        ),
        fleet=plain_fleet(),
        plan=ServingPlan(**{"pool": "h100"} | plan),
        estimate=None,
        seed=0,
        twofold_version="test",
    )


def words(model: Model = MODEL, **plan: Any) -> list[str]:
    return [flag.words for flag in vllm_flags(document(model, **plan))]


def test_the_command_says_what_each_flag_comes_from() -> None:
    command = vllm_command(document(tensor_degree=4, kv_precision="fp8", max_num_seqs=128))
    start, _, origins = command.partition("\n\n")
    assert start.startswith("vllm serve meta-llama/Llama-3.3-70B \\\n  --dtype bfloat16 \\\n")
    assert "\\\n  --tensor-parallel-size 4 \\\n" in start
    lines = origins.splitlines()
    assert len(lines) == len(start.splitlines()) - 1
    assert next(line for line in lines if "--kv-cache-dtype fp8" in line).endswith(
        "plan, kv_precision"
    )
    assert any(line.startswith("# --max-num-seqs 128 ") for line in lines)


@pytest.mark.parametrize(
    ("plan", "flag"),
    [
        ({"replicas": 2}, "--data-parallel-size 2"),
        ({"pipeline_degree": 2}, "--pipeline-parallel-size 2"),
        ({"weight_precision": "fp8"}, "--quantization fp8"),
        ({"chunked_prefill": False}, "--no-enable-chunked-prefill"),
        ({"prefix_caching": False}, "--no-enable-prefix-caching"),
        ({"num_blocks": 77}, "--num-gpu-blocks-override 77"),
        ({"memory_fraction": 0.85}, "--gpu-memory-utilization 0.85"),
        ({"block_tokens": 32}, "--block-size 32"),
        ({"precision": "fp16"}, "--dtype float16"),
        ({"precision": "fp8"}, "--quantization fp8"),
    ],
)
def test_a_lever_is_a_flag(plan: dict[str, Any], flag: str) -> None:
    assert flag in words(**plan)


@pytest.mark.parametrize(
    ("name", "hub"),
    [
        ("llama-3.3-70b", "meta-llama/Llama-3.3-70B-Instruct"),
        ("llama-3.1-70b", "meta-llama/Llama-3.1-70B-Instruct"),
        ("deepseek-r1", "deepseek-ai/DeepSeek-R1"),
    ],
)
def test_weights_are_named_as_the_hub_names_them(name: str, hub: str) -> None:
    assert words(find_model(name))[0] == hub


def test_attention_groups_share_the_devices_of_a_replica() -> None:
    said = words(EXPERTS, tensor_degree=8, attention_data_degree=4, expert_degree=8)
    assert "--tensor-parallel-size 2" in said
    assert "--data-parallel-size 4" in said
    assert "--enable-expert-parallel" in said


def test_copies_of_a_model_with_experts_are_commands_of_their_own() -> None:
    command = vllm_command(document(EXPERTS, replicas=3, tensor_degree=2))
    assert "--data-parallel-size" not in command
    assert "start it 3 times behind a load balancer, on 2 devices each" in command


@pytest.mark.parametrize(
    ("plan", "lever"),
    [
        ({"batching": "static"}, "batching"),
        ({"prefill": PrefillPlan(pool="h100")}, "prefill"),
        ({"kv_precision": "int8"}, "kv_precision"),
        ({"block_tokens": 24}, "block_tokens"),
        ({"tensor_degree": 4, "expert_degree": 2}, "expert_degree"),
    ],
)
def test_what_vllm_cannot_express_is_refused_by_name(plan: dict[str, Any], lever: str) -> None:
    with pytest.raises(InputError) as told:
        vllm_flags(document(**plan))
    assert told.value.at == f"plan, {lever}"
    lack = vllm_lack(ServingPlan(**plan))
    assert lack is not None
    assert str(lack) == str(told.value)


@pytest.mark.parametrize(
    ("plan", "stored"),
    [({"precision": "nvfp4"}, "nvfp4"), ({"weight_precision": "int8"}, "int8")],
)
def test_weights_that_vllm_does_not_quantise_must_be_named(
    plan: dict[str, Any], stored: str
) -> None:
    with pytest.raises(InputError, match=f"weights in {stored} must be stored so"):
        vllm_flags(document(**plan))
    named = replace(document(**plan), weights="of/quantised")
    assert vllm_lack(named.plan) is None
    command = vllm_command(named)
    assert command.startswith("vllm serve of/quantised ")
    assert command.endswith(f"must be stored in {stored}: vLLM reads that in their config")


def test_copies_beside_attention_groups_are_commands_of_their_own() -> None:
    made = document(tensor_degree=4, attention_data_degree=2, replicas=2)
    assert "--data-parallel-size 2" in [flag.words for flag in vllm_flags(made)]
    assert "start it 2 times behind a load balancer, on 4 devices each" in vllm_command(made)


def test_a_job_carries_the_plan_and_its_threads(tmp_path: Path) -> None:
    made = document(pool="local", threads=2)
    assert is_local(made)
    assert not is_local(document())
    job = serving_job(made, tmp_path, step_log=tmp_path / "steps.jsonl")
    assert read_serving_plan(tmp_path / "serve.json") == made
    assert str(tmp_path / "serve.json") in job.argv
    assert job.argv[-2:] == ("--step-log", str(tmp_path / "steps.jsonl"))
    assert job.environment["OMP_NUM_THREADS"] == "2"
