"""`launch.sh`: environment, process counts and arguments, each line with where it comes from."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from typing import Any

from twofold.engines.export.form import Case, Setting
from twofold.errors import InputError

LAUNCH = "launch.sh"
_TORCHRUN = (
    'torchrun --nnodes "$nodes" --nproc-per-node "$processes" \\\n'
    '  --node-rank "${NODE_RANK:-0}" --master-addr "${MASTER_ADDR:-127.0.0.1}" \\\n'
    '  --master-port "${MASTER_PORT:-29500}"'
)
"""Many machines: start it on each, with NODE_RANK and MASTER_ADDR (the address of machine 0)."""


def launch_script(
    case: Case,
    *,
    program: str,
    arguments: Sequence[Setting],
    environment: Sequence[Setting] = (),
    starter: str = _TORCHRUN,
) -> str:
    """`program` is started by torchrun, on every machine, with the arguments."""
    threads = Setting("OMP_NUM_THREADS", case.plan.threads, "plan, threads")
    pool = case.plan.pool
    lines = [
        "#!/bin/bash",
        f"# {case.model.name}: {case.plan.num_ranks} ranks on {case.num_nodes} x '{pool}'",
        "# Many machines: start it on each, with NODE_RANK (from 0) and MASTER_ADDR (machine 0).",
        "set -euo pipefail",
        'cd "$(dirname "${BASH_SOURCE[0]}")"',
        *(_export(one) for one in (threads, *environment)),
        f"nodes={case.num_nodes}  # plan, pool",
        f"processes={case.ranks_per_node}  # plan, data, tensor, context and pipeline degrees",
        "arguments=(",
        *(f"  {_argument(one)}" for one in arguments),
        ")",
        f'exec {starter} \\\n  {program} "${{arguments[@]}}" "$@"',
        "",
    ]
    return "\n".join(lines)


def read_arguments(text: str) -> dict[str, Any]:
    """The arguments of a `launch.sh` by name, flags as True; with `nodes`, `processes` and the
    environment under `$NAME`."""
    block = re.search(r"^arguments=\(\n(.*?)^\)", text, re.MULTILINE | re.DOTALL)
    if block is None:
        raise InputError(
            "there is no block `arguments=( ... )`",
            at=LAUNCH,
            help="name a folder that `twofold export` wrote",
        )
    read: dict[str, Any] = {}
    for name, value in re.findall(r"^(nodes|processes)=(\d+)", text, re.MULTILINE):
        read[name] = int(value)
    for name, value in re.findall(r"^export (\w+)=(\S+)", text, re.MULTILINE):
        read[f"${name}"] = value
    option = None
    for word in shlex.split(block[1], comments=True):
        if word.startswith("--"):
            option, _, value = word.partition("=")
            read[option] = value or True
        elif option is not None:
            read[option] = word if read[option] is True else f"{read[option]} {word}"
    return read


def required(read: dict[str, Any], option: str) -> Any:
    if option not in read:
        raise InputError(
            f"there is no {option}", at=LAUNCH, help="name a folder that `twofold export` wrote"
        )
    return read[option]


def number(read: dict[str, Any], option: str, default: int | None = None) -> int:
    """A whole number of the arguments. InputError with the option where it is none."""
    value = required(read, option) if default is None else read.get(option, default)
    try:
        return int(value)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{option} is '{value}', not a whole number", at=LAUNCH, help="correct it"
        ) from error


def comment(comes_from: str) -> str:
    return f"  # {comes_from}" if comes_from else ""


def _export(setting: Setting) -> str:
    value = shlex.quote(str(setting.value))
    return f"export {setting.option}={value}{comment(setting.comes_from)}"


def _argument(setting: Setting) -> str:
    option = setting.option
    if setting.value is not True:
        option += f" {shlex.quote(str(setting.value))}"
    return f"{option}{comment(setting.comes_from)}"
