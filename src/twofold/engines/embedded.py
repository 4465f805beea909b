"""The embedded runtime as an engine: plan documents into one Job, run folders into Runs."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from twofold.document import PlanDocument, read_plan, write_plan
from twofold.engines.run import Run, thin_curve
from twofold.errors import EnvironmentLack, InputError, JobFailed
from twofold.launch import Finished, Job
from twofold.launch.launchable import Launchable
from twofold.plan import Plan
from twofold.policy import num_machines, pool_of_rank, ranks_of_hosts
from twofold.policy.checkpointing import Interval
from twofold.workload.train import UNSPECIFIED

_RUNTIME = "twofold.runtime.train"


def embedded_job(
    documents: Sequence[PlanDocument],
    folders: Sequence[Path],
    *,
    evaluate: Sequence[Literal["tune", "test"]] = (),
    evaluation_tokens: int = 65536,
    checkpoint_every_s: Interval | None = None,
    max_steps: int | None = None,
    timeout_s: float | None = None,
) -> Job:
    """Processes, one a rank, that execute the plans in order, each in its own folder.

    Writes `plan.json` into every folder; a folder that holds a checkpoint is resumed.
    """
    num_ranks = {document.plan.num_ranks for document in documents}
    if len(num_ranks) > 1:
        raise InputError(
            f"plans of {', '.join(map(str, sorted(num_ranks)))} ranks cannot run in one job",
            at="plans",
            help="run them one after the other",
        )
    for document, folder in zip(documents, folders, strict=True):
        write_plan(document, folder / "plan.json")
    argv = [sys.executable, "-m", _RUNTIME]
    argv += [str(folder / "plan.json") for folder in folders]
    argv += ["--evaluate", *evaluate, "--evaluation-tokens", str(evaluation_tokens)]
    if checkpoint_every_s is not None:
        argv += ["--checkpoint-every-s", str(checkpoint_every_s)]
    if max_steps is not None:
        argv += ["--max-steps", str(max_steps)]
    return Job(
        name=folders[0].name,
        argv=tuple(argv),
        folder=folders[0],
        metrics=tuple(folder / "metrics.jsonl" for folder in folders),
        timeout_s=timeout_s,
        num_ranks=num_ranks.pop(),
        environment=rank_environment(documents[0].plan),
        cpu_cores=rank_cores(documents[0]),
    )


def embedded_launchable(path: Path) -> Launchable:
    """A plan as a command for machines that others start: each is one host of `twofold run`."""
    path = path / "plan.json" if path.is_dir() else path
    document = read_plan(path)
    plan, fleet = document.plan, document.fleet
    nodes = num_machines(plan, fleet)
    ranks = len(ranks_of_hosts(plan, fleet, nodes)[0])
    cpu = fleet.pool(pool_of_rank(0, plan)).node.accelerator.kind == "cpu"
    hosts = f'--hosts {nodes} --host-index "$NODE_RANK" --head "$MASTER_ADDR:$MASTER_PORT"'
    return Launchable(
        name=document.model.name,
        command=f"twofold run {path.name} --runs /workspace {hosts if nodes > 1 else ''}".rstrip(),
        folder=path.parent.resolve(),
        files=(path.name,),
        num_nodes=nodes,
        ranks_per_node=ranks,
        resource="cpu" if cpu else "nvidia.com/gpu",
        resources_per_node=ranks * plan.threads if cpu else ranks,
        data=None if document.workload.text in (UNSPECIFIED, "stdlib") else document.workload.text,
    )


def on_fewer_ranks(job: Job, plan: Path, document: PlanDocument) -> Job:
    """The same job with another plan, written beside the first."""
    write_plan(document, plan)
    argv = tuple(str(plan) if word.endswith(".json") else word for word in job.argv)
    return replace(
        job,
        argv=argv,
        num_ranks=document.plan.num_ranks,
        environment=rank_environment(document.plan),
        cpu_cores=rank_cores(document),
    )


def rank_environment(plan: Plan) -> dict[str, str]:
    """Ranks of one machine share its cores: each library is held to the plan's threads."""
    return {} if plan.num_ranks == 1 else {"OMP_NUM_THREADS": str(plan.threads)}


def rank_cores(document: PlanDocument) -> tuple[float | None, ...]:
    """The quota of every rank, where its pool's machines are processes under one."""
    plan = document.plan
    quotas = {p.name: p.cpu_cores.value for p in document.fleet.pools if p.cpu_cores is not None}
    cores = tuple(quotas.get(pool_of_rank(rank, plan)) for rank in range(plan.num_ranks))
    return cores if any(cores) else ()


def check_finished(job: Job, finished: Finished) -> None:
    """Raise what the runtime said went wrong, or JobFailed with the end of its log."""
    if finished.returncode == 0 and not finished.timed_out:
        return
    for line in reversed(finished.last_lines.splitlines()):
        said = _error_line(line)
        if said is not None:
            kind = InputError if said.get("exit_code") == 2 else JobFailed
            raise kind(str(said["error"]), at=said.get("at"), help=said.get("help"))
    ours = _RUNTIME in job.argv
    if ours and finished.returncode == EnvironmentLack.exit_code:  # and told no reason
        raise JobFailed(
            f"the run '{job.name}' lacked something here, and why cannot be written to its log",
            at=str(job.log),
            help="check free space and permission of the run folder; then resume the run",
        )
    how = (
        f"took longer than {job.timeout_s:.0f} s"
        if finished.timed_out
        else f"ended with code {finished.returncode}"
    )
    raise JobFailed(
        f"the run '{job.name}' {how}:\n{_indent(finished.last_lines)}",
        at=str(job.log),
        help="the log has the whole output; what the run wrote before is kept",
    )


def read_run(folder: Path) -> Run:
    """Read a finished run's `metrics.jsonl`."""
    rows = read_rows(folder / "metrics.jsonl")
    starts = [row for row in rows if row.get("event") == "start"]
    ends = [row for row in rows if row.get("event") == "end"]
    if not starts or not ends:
        raise JobFailed(
            "the run has not ended", at=str(folder), help="resume it with `twofold run`"
        )
    end = ends[-1]
    steps = [row for row in rows if row.get("event") == "step"]
    losses = {row["part"]: row["loss"] for row in rows if row.get("event") == "evaluation"}
    points = [(int(r["tokens"]), float(r["time_s"]), _loss(r)) for r in steps]
    last = [loss for _, _, loss in points[-max(1, len(points) // 20) :]]
    train_loss = sum(last) / len(last) if last else math.nan
    return Run(
        tokens=int(end["tokens"]),
        num_steps=int(end["num_steps"]),
        startup_s=float(starts[-1]["startup_s"]),
        train_s=float(end["train_s"]),
        cpu_s=float(end["cpu_s"]),
        step_times_s=tuple(float(row["step_time_s"]) for row in steps),
        train_loss=train_loss if math.isfinite(train_loss) else None,
        tune_loss=losses.get("tune"),
        test_loss=losses.get("test"),
        peak_memory_bytes=end["peak_memory_bytes"],
        num_parameters=int(starts[-1]["num_parameters"]),
        curve=[point for point in thin_curve(points) if math.isfinite(point[2])],
        diverged=any(row.get("event") == "diverged" for row in rows),
    )


def _loss(row: dict[str, Any]) -> float:
    """Of a step; null, as JSON has no NaN, where it was no number."""
    return math.nan if row["loss"] is None else float(row["loss"])


def read_rows(path: Path) -> list[dict[str, Any]]:
    """All whole JSON lines of a file; a torn last line is left out."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise JobFailed(
            f"the run left no metrics: {error.strerror}", at=str(path), help="see job.log beside it"
        ) from error
    rows = []
    for line in text.splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows


def _error_line(line: str) -> dict[str, Any] | None:
    try:
        said = json.loads(line)
    except ValueError:
        return None
    return said if isinstance(said, dict) and "error" in said else None


def _indent(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())
