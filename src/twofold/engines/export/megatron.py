"""Megatron-LM: the arguments of `pretrain_gpt.py`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from twofold.engines.export.form import NO_POOL, Case, Engine, Files, Lack, Setting
from twofold.engines.export.megatron_model import MODEL_LACKS, model_arguments
from twofold.engines.export.refusals import EVERYWHERE, OWN_DATA, only
from twofold.engines.export.shell import LAUNCH, launch_script, number, read_arguments
from twofold.plan import Plan, Stage

_NUMBERS = {
    "fp32": {},
    "bf16": {"--bf16": True},
    "fp16": {"--fp16": True},
    "fp8": {"--bf16": True, "--fp8-format": "hybrid", "--fp8-recipe": "delayed"},
    "mxfp8": {"--bf16": True, "--fp8-format": "e4m3", "--fp8-recipe": "mxfp8"},
    "nvfp4": {"--bf16": True, "--fp4-format": "e2m1", "--fp4-recipe": "nvfp4"},
}  # type: dict[str, dict[str, Any]]
_SHARDING = {"optim_grads": 2, "optim_grads_params": 3}
_ATTENTION = {"sdpa": "auto", "explicit": "unfused"}


def _write(case: Case) -> Files:
    arguments = [
        *_parallel_arguments(case),
        *_execution_arguments(case),
        *model_arguments(case.model),
        *_recipe_arguments(case),
    ]
    connections = case.plan.tensor_degree > 1 or case.plan.context_degree > 1
    environment = []
    if connections and case.plan.zero_stage < 2:
        environment.append(Setting("CUDA_DEVICE_MAX_CONNECTIONS", 1, "tensor or context degree"))
    launch = launch_script(
        case,
        program='"${MEGATRON:?set MEGATRON to a clone of Megatron-LM}/pretrain_gpt.py"',
        arguments=arguments,
        environment=environment,
    )
    return {LAUNCH: launch}


def _parallel_arguments(case: Case) -> list[Setting]:
    plan = case.plan
    arguments = [
        Setting("--tensor-model-parallel-size", plan.tensor_degree, "plan, tensor_degree"),
        Setting("--pipeline-model-parallel-size", plan.pipeline_degree, "plan, pipeline_degree"),
        Setting("--context-parallel-size", plan.context_degree, "plan, context_degree"),
    ]
    if plan.sequence_parallel:
        arguments.append(Setting("--sequence-parallel", True, "plan, sequence_parallel"))
    if plan.virtual_stages > 1:
        option = "--num-virtual-stages-per-pipeline-rank"
        arguments.append(Setting(option, plan.virtual_stages, "plan, virtual_stages"))
    if plan.stages:
        option = "--pipeline-model-parallel-layout"
        arguments.append(Setting(option, _layout(plan), "plan, stages"))
    if case.model.experts is not None:
        experts, tensor = "--expert-model-parallel-size", "--expert-tensor-parallel-size"
        arguments.append(Setting(experts, plan.expert_degree, "plan, expert_degree"))
        arguments.append(Setting(tensor, plan.expert_tensor_degree, "plan, expert_tensor_degree"))
    return arguments + _sharding_arguments(plan)


def _sharding_arguments(plan: Plan) -> list[Setting]:
    """ZeRO 1 is the distributed optimizer, 2 and 3 are Megatron-FSDP's strategies; copies of what
    is sharded are optimizer instances."""
    arguments: list[Setting] = []
    if plan.zero_stage == 0:
        return arguments
    arguments.append(Setting("--use-distributed-optimizer", True, "plan, zero_stage"))
    if plan.zero_stage > 1:
        strategy = {stage: name for name, stage in _SHARDING.items()}[plan.zero_stage]
        arguments += [
            Setting("--use-megatron-fsdp", True, "plan, zero_stage"),
            Setting("--data-parallel-sharding-strategy", strategy, "plan, zero_stage"),
            Setting("--ckpt-format", "fsdp_dtensor", ""),
            Setting("--no-gradient-accumulation-fusion", True, ""),
        ]
    if plan.shard_degree:
        copies = plan.data_degree // plan.shard_degree
        option = "--num-distributed-optimizer-instances"
        arguments.append(Setting(option, copies, "plan, data_degree / shard_degree"))
    return arguments


def _execution_arguments(case: Case) -> list[Setting]:
    plan, recipe = case.plan, case.workload.recipe
    arguments = [
        Setting("--micro-batch-size", plan.micro_batch, "plan, micro_batch"),
        Setting("--global-batch-size", recipe.global_batch, "recipe, global_batch"),
        Setting("--attention-backend", _ATTENTION[plan.attention], "plan, attention"),
    ]
    arguments += [
        Setting(option, value, "plan, precision")
        for option, value in _NUMBERS[plan.precision].items()
    ]
    if plan.recompute == "selective":
        arguments.append(Setting("--recompute-granularity", "selective", "plan, recompute"))
    if plan.recompute == "full":
        whole = plan.recompute_layers is None
        arguments += [
            Setting("--recompute-granularity", "full", "plan, recompute"),
            Setting("--recompute-method", "uniform" if whole else "block", "plan, recompute"),
            Setting("--recompute-num-layers", plan.recompute_layers or 1, "plan, recompute_layers"),
        ]
    if plan.offload == "optimizer":
        arguments += [
            Setting("--optimizer-cpu-offload", True, "plan, offload"),
            Setting("--use-precision-aware-optimizer", True, "plan, offload"),
        ]
    return arguments


def _recipe_arguments(case: Case) -> list[Setting]:
    """The text is unspecified: mock data, to be replaced by --data-path and a tokenizer."""
    workload, recipe = case.workload, case.workload.recipe
    styles = {"cosine": "cosine", "linear": "linear", "trapezoid": "WSD"}
    arguments = [
        Setting("--seq-length", workload.seq_len, "workload, seq_len"),
        Setting("--train-iters", workload.num_steps, "workload, tokens"),
        Setting("--optimizer", "adam", "recipe, optimizer"),
        Setting("--lr", recipe.learning_rate, "recipe, learning_rate"),
        Setting(
            "--min-lr",
            recipe.learning_rate * recipe.final_learning_rate_fraction,
            "recipe, final_learning_rate_fraction",
        ),
        Setting("--lr-decay-style", styles[recipe.schedule], "recipe, schedule"),
        Setting("--lr-warmup-fraction", recipe.warmup_fraction, "recipe, warmup_fraction"),
        Setting("--weight-decay", recipe.weight_decay, "recipe, weight_decay"),
        Setting("--adam-beta1", recipe.beta1, "recipe, beta1"),
        Setting("--adam-beta2", recipe.beta2, "recipe, beta2"),
        Setting("--clip-grad", recipe.gradient_clip, "recipe, gradient_clip"),
        Setting("--seed", case.seed, "seed"),
        Setting("--mock-data", True, "the text is unspecified; else --data-path and a tokenizer"),
        Setting("--tokenizer-type", "NullTokenizer", "likewise"),
        Setting("--log-interval", 1, ""),
        Setting("--eval-iters", 0, ""),
    ]
    if recipe.schedule == "trapezoid":
        decay = max(1, round(recipe.decay_fraction * workload.num_steps))
        arguments += [
            Setting("--lr-wsd-decay-style", "linear", "recipe, schedule"),
            Setting("--lr-wsd-decay-iters", decay, "recipe, decay_fraction"),
        ]
    return arguments


def _layout(plan: Plan) -> str:
    """`E` the embedding, `t` a layer, `L` the loss, `|` between stages."""
    stages = ["t" * stage.layers for stage in plan.stages]
    return "E" + "|".join(stages) + "L"


def _read(files: Mapping[str, str]) -> Plan:
    read = read_arguments(files[LAUNCH])
    tensor, context = (
        number(read, "--tensor-model-parallel-size", 1),
        number(read, "--context-parallel-size", 1),
    )
    pipeline = number(read, "--pipeline-model-parallel-size", 1)
    data = number(read, "nodes") * number(read, "processes") // (tensor * context * pipeline)
    copies = number(read, "--num-distributed-optimizer-instances", 1)
    virtual = number(read, "--num-virtual-stages-per-pipeline-rank", 1)
    return Plan(
        data_degree=data,
        tensor_degree=tensor,
        pipeline_degree=pipeline,
        context_degree=context,
        expert_degree=number(read, "--expert-model-parallel-size", 1),
        expert_tensor_degree=number(read, "--expert-tensor-parallel-size", 1),
        sequence_parallel="--sequence-parallel" in read,
        zero_stage=_zero_stage(read),  # type: ignore[arg-type]
        shard_degree=data // copies if copies > 1 else 0,
        schedule="interleaved" if virtual > 1 else "1f1b",
        virtual_stages=virtual,
        stages=_stages(read.get("--pipeline-model-parallel-layout", "")),
        micro_batch=number(read, "--micro-batch-size"),
        precision=_precision(read),
        attention="explicit" if read.get("--attention-backend") == "unfused" else "sdpa",
        recompute=read.get("--recompute-granularity", "none"),
        recompute_layers=(
            number(read, "--recompute-num-layers")
            if read.get("--recompute-method") == "block"
            else None
        ),
        offload="optimizer" if "--optimizer-cpu-offload" in read else "none",
        optimizer_kernel="fused",
        threads=number(read, "$OMP_NUM_THREADS", 1),
    )


def _zero_stage(read: dict[str, Any]) -> int:
    if "--use-megatron-fsdp" in read:
        return _SHARDING[read["--data-parallel-sharding-strategy"]]
    return 1 if "--use-distributed-optimizer" in read else 0


def _stages(layout: str) -> tuple[Stage, ...]:
    counts = [len(re.sub("[^t]", "", part)) for part in layout.split("|")]
    return tuple(Stage(pool=NO_POOL, layers=count) for count in counts if layout)


def _precision(read: dict[str, Any]) -> Any:
    named = {option for numbers in _NUMBERS.values() for option in numbers}
    used = {option: value for option, value in read.items() if option in named}
    return next((name for name, numbers in _NUMBERS.items() if numbers == used), "bf16")


ENGINE = Engine(
    name="megatron",
    title="Megatron-LM",
    version="d98e8a64ddf3 (2026-08-22)",
    lacks=(
        *EVERYWHERE,
        OWN_DATA,
        *MODEL_LACKS,
        Lack(
            lever="pool",
            refuses=lambda case: case.device != "gpu",
            what="{engine} runs on GPUs, and the plan is for another kind of device",
            help="plan for GPUs, or export to maxtext (TPU) or accelerate (CPU)",
        ),
        only("schedule", ("1f1b", "interleaved"), "plan with schedule '1f1b' or 'interleaved'"),
        only("precision", tuple(_NUMBERS), "plan in fp32 or bf16"),
        only("compile", (False,), "plan with compile off: Megatron fuses by itself"),
        only("optimizer_kernel", ("fused",), "plan with optimizer_kernel 'fused'"),
        Lack(
            lever="zero_stage",
            refuses=lambda case: case.plan.zero_stage > 1 and case.plan.pipeline_degree > 1,
            what="{engine} shards gradients and weights (ZeRO {plan.zero_stage}) without a "
            "pipeline, and the plan has {plan.pipeline_degree} stages",
            help="plan with ZeRO stage 1, or with pipeline_degree 1",
        ),
        Lack(
            lever="shard_degree",
            refuses=lambda case: (
                case.plan.shard_degree > 0 and case.plan.data_degree % case.plan.shard_degree > 0
            ),
            what="{plan.shard_degree} shards do not divide the {plan.data_degree} data ranks",
            help="use a shard degree that divides {plan.data_degree}, or 0 for all of them",
        ),
        Lack(
            lever="offload",
            refuses=lambda case: case.plan.offload != "none" and case.plan.zero_stage != 1,
            what="{engine} offloads its distributed optimizer, that is at ZeRO stage 1, and the "
            "plan has stage {plan.zero_stage}",
            help="plan with ZeRO stage 1, or without offload",
        ),
        Lack(
            lever="pipeline_degree",
            refuses=lambda case: (
                not case.plan.stages
                and case.model.layers % (case.plan.pipeline_degree * case.plan.virtual_stages) > 0
            ),
            what="{plan.pipeline_degree} x {plan.virtual_stages} stages do not divide the "
            "{model.layers} layers, and the plan does not say which stage holds how many",
            help="plan with `stages`, or with degrees that divide the layers",
        ),
        Lack(
            lever="virtual_stages",
            refuses=lambda case: case.plan.virtual_stages > 1 and bool(case.plan.stages),
            what="{engine} takes stages of stated layers or interleaves equal ones",
            help="plan without `stages`, or with virtual_stages 1",
        ),
        Lack(
            lever="virtual_stages",
            refuses=lambda case: (
                case.plan.virtual_stages > 1 and case.accumulation % case.plan.pipeline_degree > 0
            ),
            what="{engine} interleaves whole rounds of {plan.pipeline_degree} micro-batches, and "
            "the global batch does not give such",
            help="use a smaller micro-batch, or virtual_stages 1",
        ),
    ),
    write=_write,
    read=_read,
)
