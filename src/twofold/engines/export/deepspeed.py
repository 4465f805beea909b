"""DeepSpeed: ZeRO and offload of the optimizer, configured by `ds_config.json`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from twofold.engines.export.form import Case, Engine, Files, Lack, Setting
from twofold.engines.export.refusals import only
from twofold.engines.export.shell import LAUNCH, comment, launch_script, read_arguments
from twofold.engines.export.transformers_run import (
    LACKS,
    network_files,
    script_arguments,
    script_levers,
)
from twofold.errors import InputError
from twofold.plan import Plan

CONFIG = "ds_config.json"
_PRECISIONS = {"bf16": "bf16", "fp16": "fp16"}
"""The section that switches each on."""


def _write(case: Case) -> Files:
    arguments = script_arguments(case)
    if case.plan.compile:
        arguments.append(Setting("--compile", True, "plan, compile"))
    environment = [Setting("DS_ACCELERATOR", "cpu", "plan, pool")] if case.on_cpu else []
    return network_files(case, "train_deepspeed") | {
        CONFIG: _json_text(_sections(case)),
        LAUNCH: launch_script(
            case, program="train.py", arguments=arguments, environment=environment
        ),
    }


def _sections(case: Case) -> dict[str, list[Setting]]:
    plan, recipe = case.plan, case.workload.recipe
    sections = {
        "": [
            Setting("train_batch_size", recipe.global_batch, "recipe, global_batch"),
            Setting("train_micro_batch_size_per_gpu", plan.micro_batch, "plan, micro_batch"),
            Setting("gradient_accumulation_steps", case.accumulation, "global_batch / the two"),
            Setting("gradient_clipping", recipe.gradient_clip, "recipe, gradient_clip"),
        ],
        "zero_optimization": [Setting("stage", plan.zero_stage, "plan, zero_stage")],
    }
    if plan.precision in _PRECISIONS:
        sections[_PRECISIONS[plan.precision]] = [Setting("enabled", True, "plan, precision")]
    if plan.offload == "optimizer":
        sections["zero_optimization"].append(
            Setting("offload_optimizer", {"device": "cpu"}, "plan, offload")
        )
        sections[""].append(Setting("zero_force_ds_cpu_optimizer", False, "plan, optimizer_kernel"))
    return sections


def _json_text(sections: Mapping[str, Sequence[Setting]]) -> str:
    """JSON with `//` comments, which DeepSpeed reads as Hjson."""
    blocks = []
    for name, settings in sections.items():
        indent = "    " if name else "  "
        lines = _json_lines(settings, indent, ends=bool(name))
        blocks.append("\n".join([f'  "{name}": {{', *lines, "  }"] if name else lines))
    top, *rest = blocks
    return "{\n" + "\n".join([top, ",\n".join(rest)]) + "\n}\n"


def _json_lines(settings: Sequence[Setting], indent: str, *, ends: bool) -> list[str]:
    lines = []
    for index, one in enumerate(settings):
        comma = "" if ends and index + 1 == len(settings) else ","
        told = comment(one.comes_from).replace("#", "//")
        lines.append(f'{indent}"{one.option}": {json.dumps(one.value)}{comma}{told}')
    return lines


def read_commented(text: str, *, at: str) -> dict[str, Any]:
    """JSON in which a `//` after two blanks starts a comment."""
    try:
        read = json.loads(re.sub(r"  //.*$", "", text, flags=re.MULTILINE))
    except ValueError as error:
        raise InputError(f"the file is not JSON: {error}", at=at, help="correct it") from error
    if not isinstance(read, dict):
        raise InputError("it is not a table of keys", at=at, help="name DeepSpeed's configuration")
    return read


def _read(files: Mapping[str, str]) -> Plan:
    arguments = read_arguments(files[LAUNCH])
    config = read_commented(files[CONFIG], at=CONFIG)
    zero = config.get("zero_optimization", {})
    enabled = [lever for lever, key in _PRECISIONS.items() if config.get(key, {}).get("enabled")]
    plain: Any = "tf32" if arguments.get("--matmul-precision") == "high" else "fp32"
    precision: Any = enabled[0] if enabled else plain
    return Plan(
        **script_levers(arguments)
        | {"micro_batch": config.get("train_micro_batch_size_per_gpu", 1)},
        zero_stage=zero.get("stage", 0),
        precision=precision,
        offload="optimizer" if zero.get("offload_optimizer") else "none",
        compile="--compile" in arguments,
    )


ENGINE = Engine(
    name="deepspeed",
    title="DeepSpeed",
    version="0.19.8",
    lacks=(
        *LACKS,
        only("shard_degree", (0,), "plan with shard_degree 0, or export to accelerate"),
        Lack(
            lever="offload",
            refuses=lambda case: case.plan.offload != "none" and case.plan.zero_stage == 0,
            what="{engine} offloads what ZeRO shards, and the plan has ZeRO stage 0",
            help="plan with ZeRO stage 1, 2 or 3, or without offload",
        ),
        Lack(
            lever="precision",
            refuses=lambda case: case.on_cpu and case.plan.precision == "fp16",
            what="{engine} does not compute in fp16 on processors",
            help="plan in fp32 or bf16",
        ),
    ),
    write=_write,
    read=_read,
)
