"""torchtitan: a module of Python that returns its configuration, as its own recipes do."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from twofold.engines.export.form import NO_POOL, Case, Engine, Files, Lack, Setting
from twofold.engines.export.refusals import EVERYWHERE, OWN_DATA, only, warmup_steps
from twofold.engines.export.shell import (
    LAUNCH,
    comment,
    launch_script,
    number,
    read_arguments,
)
from twofold.errors import InputError
from twofold.model import Model
from twofold.plan import Plan, Stage
from twofold.policy.ranks import blocks_of_stages
from twofold.sources.models import find_model

CONFIG = "planned.py"
_FLAVOURS = {
    "llama-3.1-8b": ("llama3", "8B"),
    "llama-3.1-70b": ("llama3", "70B"),
    "llama-3.1-405b": ("llama3", "405B"),
    "llama-3.2-1b": ("llama3", "1B"),
    "llama-3.2-3b": ("llama3", "3B"),
    "qwen3-8b": ("qwen3", "8B"),
    "qwen3-32b": ("qwen3", "32B"),
    "qwen3-30b-a3b": ("qwen3", "30B-A3B"),
    "qwen3-235b-a22b": ("qwen3", "235B-A22B"),
    "deepseek-v3": ("deepseek_v3", "671B"),
}
"""Models of the catalog that torchtitan 0.3 builds, with its module and flavour."""
_SCHEDULES = {"gpipe": "GPipe", "1f1b": "1F1B", "interleaved": "Interleaved1F1B"}
_KERNELS = {"loop": "for-loop", "foreach": "foreach", "fused": "fused"}
_RECOMPUTE = {"none": "None", "selective": "SelectiveAC.Config()", "full": "FullAC.Config()"}


def _write(case: Case) -> Files:
    arguments = [Setting("--module", "planned", CONFIG), Setting("--config", "planned", CONFIG)]
    launch = launch_script(case, program="-m torchtitan.train", arguments=arguments)
    return {CONFIG: _module(case), LAUNCH: launch}


def _module(case: Case) -> str:
    module, flavour = _FLAVOURS[case.model.name]
    fp8 = case.plan.precision == "fp8"
    converters = ", converters=[Float8LinearConverter.Config(filter_fqns=['lm_head'])]"
    lines = [
        '"""The plan as torchtitan 0.3 reads it: --module planned --config planned."""',
        "",
        "from torchtitan.components.checkpoint import CheckpointManager",
        "from torchtitan.components.loss import ChunkedLossWrapper, CrossEntropyLoss",
        "from torchtitan.components.metrics import MetricsProcessor",
        "from torchtitan.components.optimizer import LRSchedulersContainer, default_adamw",
        *(["from torchtitan.components.quantization import Float8LinearConverter"] if fp8 else []),
        "from torchtitan.config import CompileConfig, ParallelismConfig, TrainingConfig",
        "from torchtitan.config.configs import DebugConfig",
        "from torchtitan.distributed.activation_checkpoint import FullAC, SelectiveAC",
        "from torchtitan.hf_datasets.text_datasets import HuggingFaceTextDataLoader",
        "from torchtitan.models.common.config_utils import decoder_vocab_size",
        f"from torchtitan.models.{module} import model_registry",
        "from torchtitan.trainer import Trainer",
        "",
        "",
        "def planned() -> Trainer.Config:",
        f"    spec = model_registry({flavour!r}, attn_backend='flex'"
        f"{converters if fp8 else ''})  # model; plan, attention and precision",
        f"    optimizer = {_optimizer(case)}  # recipe",
        f"    optimizer.implementation = {_KERNELS[case.plan.optimizer_kernel]!r}"
        "  # plan, optimizer_kernel",
        "    loss = CrossEntropyLoss.Config(global_vocab_size=decoder_vocab_size(spec))",
        "    return Trainer.Config(",
        "        model_spec=spec,",
        "        loss=ChunkedLossWrapper.Config(loss_fn=loss),",
        "        hf_assets_path='./assets',  # the tokenizer: scripts/download_hf_assets.py",
        "        dataloader=HuggingFaceTextDataLoader.Config(dataset='c4'),"
        "  # the text is unspecified",
        "        optimizer=optimizer,",
        *_call("lr_scheduler", "LRSchedulersContainer.Config", _schedule(case)),
        *_call("training", "TrainingConfig", _training(case)),
        *_call("parallelism", "ParallelismConfig", _parallelism(case)),
        f"        activation_checkpoint={_RECOMPUTE[case.plan.recompute]},  # plan, recompute",
        f"        compile=CompileConfig(enable={case.plan.compile}),  # plan, compile",
        f"        debug=DebugConfig(seed={case.seed}),  # seed",
        "        checkpoint=CheckpointManager.Config(interval=500),",
        "        metrics=MetricsProcessor.Config(log_freq=1),",
        "    )",
        "",
    ]
    return "\n".join(lines)


def _call(name: str, made_by: str, settings: Sequence[Setting]) -> list[str]:
    lines = [f"            {s.option}={s.value!r},{comment(s.comes_from)}" for s in settings]
    return [f"        {name}={made_by}(", *lines, "        ),"]


def _optimizer(case: Case) -> str:
    recipe = case.workload.recipe
    return (
        f"default_adamw(lr={recipe.learning_rate}, betas=({recipe.beta1}, {recipe.beta2}), "
        f"weight_decay={recipe.weight_decay})"
    )


def _schedule(case: Case) -> list[Setting]:
    recipe = case.workload.recipe
    kind = "cosine" if recipe.schedule == "cosine" else "linear"
    decay = recipe.decay_fraction if recipe.schedule == "trapezoid" else None
    return [
        Setting("warmup_steps", warmup_steps(case), "recipe, warmup_fraction"),
        Setting("decay_ratio", decay, "recipe, decay_fraction"),
        Setting("decay_type", kind, "recipe, schedule"),
        Setting("min_lr_factor", recipe.final_learning_rate_fraction, "recipe, final fraction"),
    ]


def _training(case: Case) -> list[Setting]:
    """A pipeline takes all of a rank's micro-batches at once."""
    plan, workload = case.plan, case.workload
    pipelined = plan.pipeline_degree > 1
    local = plan.micro_batch * (case.accumulation if pipelined else 1)
    plain = plan.precision == "fp32"
    settings = [
        Setting("local_batch_size", local, "plan, micro_batch"),
        Setting("global_batch_size", workload.recipe.global_batch, "recipe, global_batch"),
        Setting("seq_len", workload.seq_len, "workload, seq_len"),
        Setting("steps", workload.num_steps, "workload, tokens"),
        Setting("max_norm", workload.recipe.gradient_clip, "recipe, gradient_clip"),
        Setting("mixed_precision_param", "float32" if plain else "bfloat16", "plan, precision"),
    ]
    if pipelined or plan.expert_degree > 1:
        settings.append(
            Setting("disable_cuda_graphs", True, "plan, pipeline_degree and expert_degree")
        )
    return settings


def _parallelism(case: Case) -> list[Setting]:
    plan = case.plan
    shards = (plan.shard_degree or plan.data_degree) if plan.zero_stage else 1
    settings = [
        Setting("data_parallel_replicate_degree", plan.data_degree // shards, "plan, data_degree"),
        Setting("data_parallel_shard_degree", shards, "plan, zero_stage and shard_degree"),
        Setting("tensor_parallel_degree", plan.tensor_degree, "plan, tensor_degree"),
        Setting("enable_sequence_parallel", plan.sequence_parallel, "plan, sequence_parallel"),
        Setting("context_parallel_degree", plan.context_degree, "plan, context_degree"),
        Setting("expert_parallel_degree", plan.expert_degree, "plan, expert_degree"),
        Setting("pipeline_parallel_degree", plan.pipeline_degree, "plan, pipeline_degree"),
    ]
    if plan.zero_stage:
        reshard = "always" if plan.zero_stage == 3 else "never"
        settings.append(Setting("fsdp_reshard_after_forward", reshard, "plan, zero_stage"))
    if plan.pipeline_degree > 1:
        parts = _parts(plan, case.model.layers)
        settings += [
            Setting("pipeline_parallel_schedule", _SCHEDULES[plan.schedule], "plan, schedule"),
            Setting("pipeline_parallel_microbatch_size", plan.micro_batch, "plan, micro_batch"),
            Setting("module_fqns_per_model_part", parts, "plan, stages and virtual_stages"),
        ]
    return settings


def _parts(plan: Plan, layers: int) -> list[list[str]]:
    """The modules of every stage in model order."""
    parts = [[f"layers.{i}" for i in blocks] for blocks in blocks_of_stages(plan, layers)]
    parts[0].insert(0, "tok_embeddings")
    parts[-1] += ["norm", "lm_head"]
    return parts


def read_module(text: str) -> dict[str, Any]:
    """The literal arguments of every call, as `ParallelismConfig.tensor_parallel_degree`."""
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        raise InputError(
            f"the file is not Python: {error.msg}",
            at=f"{CONFIG}, line {error.lineno}",
            help="correct it",
        ) from error
    read: dict[str, Any] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func).split(".")[0]
            for keyword in node.keywords:
                try:
                    read[f"{name}.{keyword.arg}"] = ast.literal_eval(keyword.value)
                except ValueError:
                    read[f"{name}.{keyword.arg}"] = ast.unparse(keyword.value)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            read[ast.unparse(node.targets[0])] = node.value.value
    return read


def _read(files: Mapping[str, str]) -> Plan:
    read, launch = read_module(files[CONFIG]), read_arguments(files[LAUNCH])
    of = {key.removeprefix("ParallelismConfig."): value for key, value in read.items()}
    shards, copies = of["data_parallel_shard_degree"], of["data_parallel_replicate_degree"]
    zero: Any = {"always": 3, "never": 2}.get(of.get("fsdp_reshard_after_forward", ""), 0)
    pipeline = of["pipeline_parallel_degree"]
    parts = of.get("module_fqns_per_model_part", [])
    virtual = len(parts) // pipeline if parts else 1
    schedules = {word: lever for lever, word in _SCHEDULES.items()}
    schedule: Any = schedules[of.get("pipeline_parallel_schedule", "1F1B")]
    kernels = {word: lever for lever, word in _KERNELS.items()}
    policies = {text: lever for lever, text in _RECOMPUTE.items()} | {None: "none"}
    recompute: Any = policies[read["Trainer.activation_checkpoint"]]
    kernel: Any = kernels[read["optimizer.implementation"]]
    return Plan(
        data_degree=shards * copies,
        tensor_degree=of["tensor_parallel_degree"],
        pipeline_degree=pipeline,
        context_degree=of["context_parallel_degree"],
        expert_degree=of["expert_parallel_degree"],
        sequence_parallel=of["enable_sequence_parallel"],
        zero_stage=zero,
        shard_degree=shards if zero and copies > 1 else 0,
        schedule=schedule,
        virtual_stages=virtual,
        stages=_stages(parts) if virtual == 1 else (),
        micro_batch=of.get(
            "pipeline_parallel_microbatch_size", read["TrainingConfig.local_batch_size"]
        ),
        precision=_precision(read),
        recompute=recompute,
        compile=read["CompileConfig.enable"],
        optimizer_kernel=kernel,
        threads=number(launch, "$OMP_NUM_THREADS", 1),
    )


def _stages(parts: Sequence[Sequence[str]]) -> tuple[Stage, ...]:
    """Stages as equal as the layers allow, the first ones larger, are the plan's default."""
    counts = [sum(name.startswith("layers.") for name in part) for part in parts]
    if not counts or counts == _even(sum(counts), len(counts)):
        return ()
    return tuple(Stage(pool=NO_POOL, layers=count) for count in counts)


def _even(layers: int, stages: int) -> list[int]:
    return [layers // stages + (index < layers % stages) for index in range(stages)]


def _precision(read: Mapping[str, Any]) -> Any:
    if "Float8LinearConverter.filter_fqns" in read:
        return "fp8"
    plain = read["TrainingConfig.mixed_precision_param"] == "float32"
    return "fp32" if plain else "bf16"


def _builds(model: Model) -> bool:
    """Whether the model is one of the flavours, in name and in shape."""
    return model.name in _FLAVOURS and _catalog_model(model.name) == model


_catalog_model = cache(find_model)


ENGINE = Engine(
    name="torchtitan",
    title="torchtitan",
    version="0.3.0",
    lacks=(
        *EVERYWHERE,
        OWN_DATA,
        Lack(
            lever="model",
            refuses=lambda case: not _builds(case.model),
            what="{engine} builds models by flavour, and has none of the shape of '{model.name}'",
            help="use one of " + ", ".join(_FLAVOURS) + ", or export to megatron",
        ),
        Lack(
            lever="pool",
            refuses=lambda case: case.device != "gpu",
            what="{engine} runs on GPUs, and the plan is for another kind of device",
            help="plan for GPUs, or export to maxtext (TPU) or accelerate (CPU)",
        ),
        only("attention", ("sdpa",), "plan with attention 'sdpa' (a fused kernel)"),
        only("zero_stage", (0, 2, 3), "plan with ZeRO stage 0, 2 or 3, or export to megatron"),
        Lack(
            lever="shard_degree",
            refuses=lambda case: (
                case.plan.shard_degree > 0 and case.plan.data_degree % case.plan.shard_degree > 0
            ),
            what="{plan.shard_degree} shards do not divide the {plan.data_degree} data ranks",
            help="use a shard degree that divides {plan.data_degree}, or 0 for all of them",
        ),
        only("schedule", tuple(_SCHEDULES), "plan with schedule '1f1b' or 'interleaved'"),
        Lack(
            lever="virtual_stages",
            refuses=lambda case: (
                case.plan.virtual_stages > 1
                and (case.plan.schedule != "interleaved" or case.plan.pipeline_degree == 1)
            ),
            what="{plan.virtual_stages} chunks a rank need the interleaved schedule of a pipeline",
            help="use schedule 'interleaved', or virtual_stages 1",
        ),
        only("precision", ("fp32", "bf16", "fp8"), "plan in bf16"),
        Lack(
            lever="precision",
            refuses=lambda case: case.plan.precision == "fp8" and not case.plan.compile,
            what="{engine} is slower in fp8 than in bf16 unless it compiles, and the plan does not",
            help="plan with compile, or in bf16",
        ),
        only("recompute_layers", (None,), "leave recompute_layers out, or export to megatron"),
        only("offload", ("none",), "plan without offload, or export to megatron or deepspeed"),
        only("expert_tensor_degree", (1,), "plan with expert_tensor_degree 1"),
    ),
    write=_write,
    read=_read,
)
