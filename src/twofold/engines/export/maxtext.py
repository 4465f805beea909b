"""MaxText: a `maxtext.yml` on top of its `base.yml`, for TPUs and GPUs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from twofold.engines.export.form import Case, Engine, Files, Lack, Setting
from twofold.engines.export.refusals import EVERYWHERE, OWN_DATA, only
from twofold.engines.export.shell import LAUNCH, launch_script, number, read_arguments
from twofold.engines.export.yaml import read_yaml, yaml_text
from twofold.model import Model
from twofold.plan import Plan

CONFIG = "maxtext.yml"
_ATTENTION = {"sdpa": "flash", "explicit": "dot_product"}
_GPU_FLASH = "cudnn_flash_te"
_ALWAYS = "XLA compiles the whole step, its update included, whatever the plan says"


def _write(case: Case) -> Files:
    starter = "python3 -m maxtext.trainers.pre_train.train"
    launch = launch_script(case, program=CONFIG, arguments=(), starter=starter)
    sections = {"": [*_parallel(case), *_execution(case), *_model(case.model), *_recipe(case)]}
    title = "MaxText reads it on top of its base.yml; every host of the slice starts launch.sh"
    return {CONFIG: yaml_text(sections, title=title), LAUNCH: launch}


def _parallel(case: Case) -> list[Setting]:
    """Inside a slice (ici) everything but what the slices repeat (dcn): copies, else shards."""
    plan = case.plan
    axes = _axes(case)
    assert axes is not None
    tensor = "tensor_sequence" if plan.sequence_parallel else "tensor"
    return [
        Setting("base_config", "base.yml", ""),
        Setting("run_name", case.model.name, "model"),
        Setting("hardware", "tpu" if case.device == "tpu" else "gpu", "plan, pool"),
        Setting("dcn_data_parallelism", axes.outer_copies, "plan, data_degree over the slices"),
        Setting("dcn_fsdp_parallelism", axes.outer_shards, "plan, shard_degree over the slices"),
        Setting("ici_data_parallelism", axes.copies // axes.outer_copies, "plan, data_degree"),
        Setting(
            "ici_fsdp_parallelism",
            axes.shards // axes.outer_shards,
            "plan, zero_stage, shard_degree",
        ),
        Setting(f"ici_{tensor}_parallelism", plan.tensor_degree, "plan, tensor_degree"),
        Setting("ici_context_parallelism", plan.context_degree, "plan, context_degree"),
        Setting("ici_expert_parallelism", plan.expert_degree, "plan, expert_degree"),
        Setting("shard_optimizer_over_data", plan.zero_stage == 1, "plan, zero_stage"),
    ]


def _execution(case: Case) -> list[Setting]:
    plan = case.plan
    flash = _GPU_FLASH if case.device == "gpu" else _ATTENTION["sdpa"]
    attention = flash if plan.attention == "sdpa" else _ATTENTION["explicit"]
    return [
        Setting(
            "per_device_batch_size",
            plan.micro_batch * plan.data_degree / plan.num_ranks,
            "plan, micro_batch x data_degree / devices",
        ),
        Setting("gradient_accumulation_steps", case.accumulation, "recipe, global_batch"),
        Setting("dtype", "float32" if plan.precision == "fp32" else "bfloat16", "plan, precision"),
        Setting("weight_dtype", "float32", ""),
        Setting("quantization", "fp8" if plan.precision == "fp8" else "", "plan, precision"),
        Setting("attention", attention, "plan, attention"),
        Setting("remat_policy", plan.recompute, "plan, recompute"),
        Setting("optimizer_memory_host_offload", plan.offload == "optimizer", "plan, offload"),
    ]


def _model(model: Model) -> list[Setting]:
    mixture = model.experts is not None
    settings = [
        Setting("decoder_block", "mixtral" if mixture else "llama2", "model"),
        Setting("base_emb_dim", model.hidden, "model, hidden"),
        Setting("base_num_query_heads", model.heads, "model, heads"),
        Setting("base_num_kv_heads", model.kv_heads, "model, kv_heads"),
        Setting("base_mlp_dim", model.ffn, "model, ffn"),
        Setting("base_num_decoder_layers", model.layers, "model, layers"),
        Setting("head_dim", model.head_size, "model, head_dim"),
        Setting("mlp_activations", ["silu", "linear"], "model, activation"),
        Setting("vocab_size", model.vocab, "model, vocab"),
        Setting("logits_via_embedding", model.tied_embeddings, "model, tied_embeddings"),
    ]
    if model.experts is not None:
        settings += [
            Setting("base_moe_mlp_dim", model.experts.ffn, "model, experts.ffn"),
            Setting("num_experts", model.experts.count, "model, experts.count"),
            Setting("num_experts_per_tok", model.experts.top_k, "model, experts.top_k"),
        ]
    return settings


def _recipe(case: Case) -> list[Setting]:
    workload, recipe = case.workload, case.workload.recipe
    settings = [
        Setting("max_target_length", workload.seq_len, "workload, seq_len"),
        Setting("steps", workload.num_steps, "workload, tokens"),
        Setting("dataset_type", "synthetic", "the text is unspecified"),
        Setting("opt_type", "adamw", "recipe, optimizer"),
        Setting("learning_rate", recipe.learning_rate, "recipe, learning_rate"),
        Setting("lr_schedule_type", _schedule(case), "recipe, schedule"),
        Setting("warmup_steps_fraction", recipe.warmup_fraction, "recipe, warmup_fraction"),
        Setting(
            "learning_rate_final_fraction", recipe.final_learning_rate_fraction,
            "recipe, final_learning_rate_fraction",
        ),
        Setting("adam_b1", recipe.beta1, "recipe, beta1"),
        Setting("adam_b2", recipe.beta2, "recipe, beta2"),
        Setting("adam_weight_decay", recipe.weight_decay, "recipe, weight_decay"),
        Setting("gradient_clipping_threshold", recipe.gradient_clip, "recipe, gradient_clip"),
    ]  # fmt: skip
    if recipe.schedule != "cosine":
        decay = recipe.decay_fraction if recipe.schedule == "trapezoid" else _after_warmup(case)
        settings.append(Setting("wsd_decay_steps_fraction", decay, "recipe, decay_fraction"))
    return settings


def _schedule(case: Case) -> str:
    return "cosine" if case.workload.recipe.schedule == "cosine" else "wsd"


def _after_warmup(case: Case) -> float:
    """A linear schedule falls all the way after its warm-up."""
    return 1.0 - case.workload.recipe.warmup_fraction


def _read(files: Mapping[str, str]) -> Plan:
    read, launch = read_yaml(files[CONFIG], at=CONFIG), read_arguments(files[LAUNCH])
    sequence = "ici_tensor_sequence_parallelism" in read
    tensor = read["ici_tensor_sequence_parallelism" if sequence else "ici_tensor_parallelism"]
    copies = read["dcn_data_parallelism"] * read["ici_data_parallelism"]
    spread = read["dcn_fsdp_parallelism"] * read["ici_fsdp_parallelism"]
    experts, context = read["ici_expert_parallelism"], read["ici_context_parallelism"]
    data = copies * spread * experts
    ranks = data * tensor * context
    zero: Any = 1 if read["shard_optimizer_over_data"] else 3 if spread > 1 else 0
    shards = spread * experts
    plain: Any = "fp32" if read["dtype"] == "float32" else "bf16"
    return Plan(
        data_degree=data,
        tensor_degree=tensor,
        context_degree=context,
        expert_degree=experts,
        sequence_parallel=sequence,
        zero_stage=zero,
        shard_degree=shards if zero == 3 and shards < data else 0,
        micro_batch=round(read["per_device_batch_size"] * ranks / data),
        precision="fp8" if read["quantization"] == "fp8" else plain,
        attention="explicit" if read["attention"] == "dot_product" else "sdpa",
        recompute=read["remat_policy"],
        offload="optimizer" if read["optimizer_memory_host_offload"] else "none",
        threads=number(launch, "$OMP_NUM_THREADS", 1),
    )


def _has_shape(model: Model) -> bool:
    """Llama 2's or Mixtral's block."""
    experts = model.experts
    plain = experts is None or (
        experts.first_layer == 0
        and experts.every == 1
        and not experts.shared_ffn
        and not experts.bias
        and not experts.router_bias
    )
    biases = (model.qkv_bias, model.output_bias, model.mlp_bias)
    return (
        plain
        and (model.norm, model.norm_place) == ("rmsnorm", "before")
        and (model.activation, model.position) == ("swiglu", "rotary")
        and model.causal
        and not any(model.bias if bias is None else bias for bias in biases)
        and not (model.qk_norm or model.value_embeddings or model.embedding_norm)
        and not (model.latent or model.towers or model.attention_sinks)
        and model.window is None
        and model.logit_softcap is None
    )


class _Axes(NamedTuple):
    """Data ranks beside those that spread experts: copies of what is sharded, and shards; and how
    many of each lie on unlike slices."""

    copies: int
    shards: int
    outer_copies: int
    outer_shards: int


def _axes(case: Case) -> _Axes | None:
    """The slices repeat copies, or else shards; None where the degrees do not divide so."""
    plan, slices = case.plan, case.num_slices
    shards = (plan.shard_degree or plan.data_degree) if plan.zero_stage == 3 else 1
    copies = plan.data_degree // shards
    if (shards if shards > 1 else copies) % plan.expert_degree:
        return None
    if shards > 1:
        shards //= plan.expert_degree
    else:
        copies //= plan.expert_degree
    if copies % slices == 0:
        return _Axes(copies, shards, slices, 1)
    return _Axes(copies, shards, 1, slices) if shards % slices == 0 else None


ENGINE = Engine(
    name="maxtext",
    title="MaxText",
    version="e591f30cbbf2 (2026-08-22)",
    ignores={"compile": _ALWAYS, "optimizer_kernel": _ALWAYS},
    lacks=(
        *EVERYWHERE,
        OWN_DATA,
        Lack(
            lever="model",
            refuses=lambda case: not _has_shape(case.model),
            what="the export to {engine} has the blocks of Llama and Mixtral, and '{model.name}' "
            "has another",
            help="plan such a model, or export to megatron",
        ),
        Lack(
            lever="pool",
            refuses=lambda case: case.device not in ("gpu", "tpu"),
            what="{engine} runs on TPUs and GPUs, and the plan is for another kind of device",
            help="plan for such, or export to accelerate",
        ),
        only(
            "pipeline_degree",
            (1,),
            "plan with pipeline_degree 1, or export to megatron or torchtitan",
        ),
        only("virtual_stages", (1,), "plan with virtual_stages 1"),
        only("zero_stage", (0, 1, 3), "plan with ZeRO stage 1 or 3"),
        Lack(
            lever="shard_degree",
            refuses=lambda case: (
                case.plan.shard_degree > 0
                and (
                    case.plan.zero_stage != 3 or case.plan.data_degree % case.plan.shard_degree > 0
                )
            ),
            what="{engine} shards over a part of the data ranks at ZeRO stage 3, over a divisor of "
            "{plan.data_degree}, and the plan has stage {plan.zero_stage} over {plan.shard_degree}",
            help="plan with shard_degree 0",
        ),
        Lack(
            lever="expert_degree",
            refuses=lambda case: case.plan.expert_degree > 1 and _axes(case) is None,
            what="{engine} spreads experts over data ranks, and {plan.expert_degree} does not "
            "divide them",
            help="use an expert degree that divides the data (and shard) degree",
        ),
        Lack(
            lever="data_degree",
            refuses=lambda case: _axes(case) is None,
            what="{engine} repeats data ranks over the slices, and {plan.data_degree} do not "
            "divide so",
            help="use a data degree that the number of slices divides",
        ),
        Lack(
            lever="zero_stage",
            refuses=lambda case: (
                case.plan.zero_stage == 3
                and case.plan.expert_degree == (case.plan.shard_degree or case.plan.data_degree)
            ),
            what="{engine} shards the dense weights over the ranks that experts leave, and expert "
            "degree {plan.expert_degree} leaves none",
            help="use a smaller expert degree, or ZeRO stage 1",
        ),
        only("expert_tensor_degree", (1,), "plan with expert_tensor_degree 1"),
        only("precision", ("fp32", "bf16", "fp8"), "plan in bf16"),
        only(
            "recompute",
            ("none", "full"),
            "plan with recompute 'full': other policies of MaxText save other operations",
        ),
        only("recompute_layers", (None,), "leave recompute_layers out, or export to megatron"),
    ),
    write=_write,
    read=_read,
)
