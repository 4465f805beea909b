"""A Slurm batch script that runs a run folder on several nodes, and goes on where one is lost."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from twofold.document import PlanDocument, write_text
from twofold.errors import EnvironmentLack, InputError, JobFailed
from twofold.launch.launchable import Launchable
from twofold.policy import num_machines, pool_of_rank, ranks_of_hosts

_SAVE_S = 120
_FIRST_PORT, _NUM_PORTS = 20000, 20000
_FIRST_ADDRESS = (
    'first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)',
    "address=$(scontrol show node \"$first\" | sed -n 's/.*NodeAddr=\\([^ ]*\\).*/\\1/p')",
)


def batch_script(
    document: PlanDocument, folder: Path, *, num_nodes: int | None, options: Sequence[str]
) -> str:
    """One agent a node, which starts the node's ranks; `options` are those of `twofold run`.

    The job lives on when a node fails (`--no-kill`), saves before its time is up (`--signal`),
    and a requeued or resubmitted one resumes, because it runs the folder.
    """
    plan, fleet = document.plan, document.fleet
    pools = list(dict.fromkeys(pool_of_rank(rank, plan) for rank in range(plan.num_ranks)))
    if len(pools) > 1:
        raise InputError(
            f"the plan uses the pools {', '.join(pools)}, and a Slurm job numbers its nodes by "
            "name, not by pool",
            at="plan, shares and stages",
            help="plan on one pool, or start `twofold run --hosts ...` on the nodes yourself",
        )
    nodes = num_nodes if num_nodes is not None else num_machines(plan, fleet)
    ranks_per_node = len(ranks_of_hosts(plan, fleet, nodes)[0])
    accelerator = fleet.pool(pools[0]).node.accelerator
    if accelerator.kind == "cpu":
        cpus = ranks_per_node * plan.threads
        resources = [f"--cpus-per-task={cpus}"]
        step = f" --cpus-per-task={cpus}"
    else:
        resources, step = [f"--gpus-per-node={ranks_per_node}", "--exclusive"], ""
    directives = [
        f"--job-name=twofold-{re.sub(r'[^A-Za-z0-9._-]', '-', folder.name)}",
        f"--nodes={nodes}",
        "--ntasks-per-node=1",
        *resources,
        f"--chdir={_quoted(Path.cwd())}",
        f"--output={_quoted(folder / 'logs' / 'slurm-%j.log')}",
        "--open-mode=append",
        "--no-kill",
        "--requeue",
        f"--signal=TERM@{_SAVE_S}",
    ]
    command = [sys.executable, "-m", "twofold.cli", "run", str(folder), *options]
    return "\n".join(
        [
            "#!/bin/bash",
            *(f"#SBATCH {directive}" for directive in directives),
            "set -euo pipefail",
            *_FIRST_ADDRESS,
            f"port=$(({_FIRST_PORT} + SLURM_JOB_ID % {_NUM_PORTS}))",
            f"run=({shlex.join(command)}",
            '  --hosts "$SLURM_JOB_NUM_NODES" --head "$address:$port")',
            f"exec srun --no-kill --kill-on-bad-exit=0{step} \\",
            '  bash -c \'exec "$@" --host-index "$SLURM_NODEID"\' twofold "${run[@]}"',
            "",
        ]
    )


def command_script(launch: Launchable) -> str:
    """The launch's own command, once on every node; nothing is started again after a failure."""
    if launch.on_cpu:
        resources = [f"--cpus-per-task={launch.resources_per_node}"]
    else:
        resources = [f"--gpus-per-node={launch.resources_per_node}", "--exclusive"]
    directives = [
        f"--job-name=twofold-{re.sub(r'[^A-Za-z0-9._-]', '-', launch.name)}",
        f"--nodes={launch.num_nodes}",
        "--ntasks-per-node=1",
        *resources,
        f"--chdir={_quoted(launch.folder)}",
        f"--output={_quoted(launch.folder / 'logs' / 'slurm-%j.log')}",
        "--open-mode=append",
    ]
    cores = f" --cpus-per-task={launch.resources_per_node}" if launch.on_cpu else ""
    return "\n".join(
        [
            "#!/bin/bash",
            *(f"#SBATCH {directive}" for directive in directives),
            "set -euo pipefail",
            *_FIRST_ADDRESS,
            'export MASTER_ADDR="$address"',
            f"export MASTER_PORT=$(({_FIRST_PORT} + SLURM_JOB_ID % {_NUM_PORTS}))",
            f"exec srun --kill-on-bad-exit=1{cores} \\",
            f"  bash -c 'export NODE_RANK=\"$SLURM_NODEID\"; {launch.command}'",
            "",
        ]
    )


def write_script(text: str, folder: Path) -> Path:
    """Into the run folder, beside the plan; its log has a place to go to."""
    path = folder / "run.sbatch"
    write_text(path, text)
    (folder / "logs").mkdir(exist_ok=True)
    return path


def submit(script: Path) -> str:
    """Hand it to Slurm; the job's number. `SBATCH_PARTITION` and the like are honoured by it."""
    if shutil.which("sbatch") is None:
        raise EnvironmentLack(
            "there is no sbatch here", help=f"submit on the cluster: sbatch {script}"
        )
    done = subprocess.run(
        ["sbatch", "--parsable", str(script)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise JobFailed(
            f"sbatch refused the script: {done.stderr.strip()}",
            at=str(script),
            help="what the cluster wants (partition, account, time) can be set as SBATCH_... "
            "variables, or edited in the script",
        )
    return done.stdout.strip().split(";")[0]


def _quoted(path: Path) -> str:
    text = str(path)
    return f'"{text}"' if re.search(r"\s", text) else text
