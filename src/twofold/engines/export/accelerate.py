"""Hugging Face accelerate: DDP and FSDP 2, configured by `accelerate.yaml`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from twofold.engines.export.form import Case, Engine, Files, Lack, Setting
from twofold.engines.export.huggingface import LAYER_CLASSES, huggingface_config
from twofold.engines.export.refusals import only
from twofold.engines.export.shell import LAUNCH, launch_script, number, read_arguments
from twofold.engines.export.transformers_run import (
    LACKS,
    network_files,
    script_arguments,
    script_levers,
)
from twofold.engines.export.yaml import read_yaml, yaml_text
from twofold.plan import Plan

CONFIG = "accelerate.yaml"
_MIXED = {"fp32": "no", "tf32": "no", "bf16": "bf16", "fp16": "fp16"}
_LAUNCH = (
    f'accelerate launch --config_file {CONFIG} --machine_rank "${{NODE_RANK:-0}}" \\\n'
    '  --main_process_ip "${MASTER_ADDR:-127.0.0.1}" '
    '--main_process_port "${MASTER_PORT:-29500}"'
)


def _write(case: Case) -> Files:
    arguments = script_arguments(case)
    files = network_files(case, "train_accelerate")
    if case.on_cpu:
        return files | {LAUNCH: _launch_on_cpu(case, arguments), CONFIG: _config(case)}
    launch = launch_script(case, program="train.py", arguments=arguments, starter=_LAUNCH)
    return files | {LAUNCH: launch, CONFIG: _config(case)}


def _launch_on_cpu(case: Case, arguments: list[Setting]) -> str:
    """On processors `accelerate launch` starts one process whatever it is told (1.15), so
    torchrun starts them and the environment says what the file would."""
    compiled = "INDUCTOR" if case.plan.compile else "NO"
    environment = (
        Setting("ACCELERATE_USE_CPU", "true", "plan, pool"),
        Setting("ACCELERATE_MIXED_PRECISION", _MIXED[case.plan.precision], "plan, precision"),
        Setting("ACCELERATE_DYNAMO_BACKEND", compiled, "plan, compile"),
    )
    return launch_script(case, program="train.py", arguments=arguments, environment=environment)


def _config(case: Case) -> str:
    plan = case.plan
    one = plan.num_ranks == 1 and plan.zero_stage == 0
    kind = "NO" if one else "FSDP" if plan.zero_stage else "MULTI_GPU"
    if case.on_cpu:
        kind = "NO" if one else "MULTI_CPU"
    sections = {
        "": [
            Setting("compute_environment", "LOCAL_MACHINE", ""),
            Setting("distributed_type", kind, "plan, zero_stage and data_degree"),
            Setting("use_cpu", case.on_cpu, "plan, pool"),
            Setting("mixed_precision", _MIXED[plan.precision], "plan, precision"),
            Setting("num_machines", case.num_nodes, "plan, pool"),
            Setting("num_processes", plan.num_ranks, "plan, data_degree"),
        ],
    }
    if plan.zero_stage:
        sections["fsdp_config"] = _fsdp(case)
        sections["parallelism_config"] = _degrees(case)
    if plan.compile:
        sections["dynamo_config"] = [Setting("dynamo_backend", "INDUCTOR", "plan, compile")]
    return yaml_text(sections, title="accelerate 1.15; `accelerate launch --config_file` reads it")


def _fsdp(case: Case) -> list[Setting]:
    kind = str(huggingface_config(case.model, attention="sdpa")["model_type"])
    reshard = case.plan.zero_stage == 3
    return [
        Setting("fsdp_version", 2, "plan, zero_stage"),
        Setting("fsdp_reshard_after_forward", reshard, "plan, zero_stage: 3 true, 2 false"),
        Setting("fsdp_auto_wrap_policy", "TRANSFORMER_BASED_WRAP", ""),
        Setting("fsdp_transformer_layer_cls_to_wrap", LAYER_CLASSES[kind], "model"),
        Setting("fsdp_offload_params", False, "plan, offload"),
        Setting("fsdp_state_dict_type", "SHARDED_STATE_DICT", ""),
    ]


def _degrees(case: Case) -> list[Setting]:
    shards = case.plan.shard_degree or case.plan.data_degree
    return [
        Setting("parallelism_config_dp_shard_size", shards, "plan, shard_degree"),
        Setting(
            "parallelism_config_dp_replicate_size",
            case.plan.data_degree // shards,
            "plan, data_degree / shard_degree",
        ),
    ]


def _read(files: Mapping[str, str]) -> Plan:
    arguments, config = read_arguments(files[LAUNCH]), read_yaml(files[CONFIG], at=CONFIG)
    levers = script_levers(arguments)
    sharded = config["distributed_type"] == "FSDP"
    stage: Literal[0, 2, 3] = 0
    if sharded:
        stage = 3 if config["fsdp_config.fsdp_reshard_after_forward"] else 2
    shards = number(config, "parallelism_config.parallelism_config_dp_shard_size", 0)
    return Plan(
        **levers,
        zero_stage=stage,
        shard_degree=0 if shards == levers["data_degree"] else shards,
        precision=_precision(config, arguments),
        compile="dynamo_config.dynamo_backend" in config,
    )


def _precision(config: dict[str, Any], arguments: dict[str, Any]) -> Any:
    mixed = config["mixed_precision"]
    if mixed != "no":
        return mixed
    return "tf32" if arguments["--matmul-precision"] == "high" else "fp32"


ENGINE = Engine(
    name="accelerate",
    title="accelerate",
    version="1.15.0",
    lacks=(
        *LACKS,
        only("zero_stage", (0, 2, 3), "plan with ZeRO stage 2 or 3, or export to deepspeed"),
        Lack(
            lever="zero_stage",
            refuses=lambda case: case.on_cpu and case.plan.zero_stage > 0,
            what="{engine} does not shard on processors, and the plan has ZeRO stage "
            "{plan.zero_stage}",
            help="plan with ZeRO stage 0, or export to deepspeed",
        ),
        Lack(
            lever="shard_degree",
            refuses=lambda case: (
                case.plan.shard_degree > 0 and case.plan.data_degree % case.plan.shard_degree > 0
            ),
            what="{plan.shard_degree} shards do not divide the {plan.data_degree} data ranks",
            help="use a shard degree that divides {plan.data_degree}, or 0 for all of them",
        ),
        only("offload", ("none",), "plan without offload, or export to deepspeed"),
    ),
    write=_write,
    read=_read,
)
