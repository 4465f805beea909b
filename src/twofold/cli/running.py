"""The verb that executes a plan: on one machine, on many, or under Slurm."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from twofold.cli.choices import read_option
from twofold.cli.output import EXIT_NO, answer, watcher
from twofold.errors import InputError
from twofold.units import parse_seconds

if TYPE_CHECKING:
    from twofold.measure.execution import Machines
    from twofold.policy.checkpointing import Interval


_LEAST_SILENCE_S = 3.0
"""Of machines that speak once a second (`launch.wire`)."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """Execute a plan exactly, or resume a run folder; leaves metrics and checkpoints in it."""

    plan: tyro.conf.Positional[Path]
    """`plan.json`, or the folder of a run to resume."""
    runs: Path = Path("runs")
    """Where the run folder is made. Many machines must share it."""
    checkpoint_every: str = "best"
    """Time between checkpoints (5min); 'best' loses the least to saving and failing together."""
    max_restarts: int = 3
    """How often in a row to start ranks again that died without a new checkpoint between."""
    hosts: int | None = None
    """Many machines: how many. Start the same command on each, with its --host-index."""
    host_index: int | None = None
    """Many machines: which one this is, from 0, in the order of the plan's pools."""
    head: str | None = None
    """Many machines: ADDRESS:PORT of host 0, reachable from all."""
    interface: str | None = None
    """Many machines: the network interface of this one's ranks; the one towards the head."""
    coordinator: bool = False
    """Many machines, on all: the head is a process of its own, the one without --host-index."""
    join_within: str = "10min"
    """Many machines: how long to wait for all of them."""
    lost_after: str = "15s"
    """Many machines: one that is silent for so long is gone."""
    slurm: bool = False
    """Write a Slurm batch script that runs the plan, on --hosts nodes or as many as it fills."""
    submit: bool = False
    """With --slurm: submit it as well."""
    rehearse: bool = False
    """Run nothing: check on this process alone, for a plan of any size, that its ranks hold and
    send what was predicted."""
    json: bool = False
    """Print one JSON document."""

    def execute(self) -> int:
        if self.rehearse:
            self._check_rehearsal()
            return self._rehearse()
        if self.max_restarts < 0:
            raise InputError(
                f"{self.max_restarts} restarts", at="--max-restarts", help="use 0 or more"
            )
        if self.submit and not self.slurm:
            raise InputError("--submit goes with --slurm", help="add it, or leave --submit out")
        if self.slurm:
            return self._write_script()
        alone = (self.hosts, self.host_index, self.head) == (None, None, None)
        if alone and not self.coordinator:
            return self._run(None)
        self._check_place()
        leads = self.host_index is None if self.coordinator else self.host_index == 0
        return self._run(self._machines()) if leads else self._take_part()

    def _check_rehearsal(self) -> None:
        others = {
            "--slurm": self.slurm,
            "--submit": self.submit,
            "--hosts": self.hosts is not None,
            "--host-index": self.host_index is not None,
            "--head": self.head is not None,
            "--coordinator": self.coordinator,
        }
        named = ", ".join(name for name, given in others.items() if given)
        if named:
            raise InputError(
                f"--rehearse checks a plan on this process alone, without {named}",
                help="leave one of them out",
            )

    def _check_place(self) -> None:
        complete = self.hosts is not None and self.head is not None
        if not complete or (self.host_index is None and not self.coordinator):
            raise InputError(
                "many machines need --hosts, --head and --host-index",
                help="on each one: twofold run plan.json --hosts 3 --host-index I "
                "--head 10.0.0.1:29400",
            )
        if not 0 <= (self.host_index or 0) < (self.hosts or 0):
            raise InputError(
                f"host {self.host_index or 0} of {self.hosts}",
                at="--host-index",
                help="count the hosts from 0",
            )

    def _run(self, machines: Machines | None) -> int:
        from twofold.measure.execution import execute_plan
        from twofold.report.terminal import run_text
        from twofold.report.trace import write_trace

        with watcher() as progress:
            done = execute_plan(
                self.plan,
                runs=self.runs,
                checkpoint_every_s=self._checkpoint_every(),
                progress=progress,
                max_restarts=self.max_restarts,
                machines=machines,
            )
        if (done.folder / "ranks").is_dir():
            write_trace(done.folder, done.folder / "trace.json")
        answer(done.as_mapping() if self.json else run_text(done))
        return EXIT_NO if done.run.diverged else 0

    def _machines(self) -> Machines:
        from twofold.launch.network import parse_address
        from twofold.measure.execution import Machines

        assert self.hosts is not None
        assert self.head is not None
        return Machines(
            num_hosts=self.hosts,
            head=parse_address(self.head),
            interface=self.interface,
            runs_ranks=not self.coordinator,
            join_within_s=self._seconds("join_within"),
            lost_after_s=self._lost_after_s(),
        )

    def _take_part(self) -> int:
        from twofold.launch.agent import serve_head
        from twofold.launch.network import parse_address

        assert self.host_index is not None
        assert self.head is not None
        with watcher() as progress:
            end = serve_head(
                self.host_index,
                parse_address(self.head),
                interface=self.interface,
                join_within_s=self._seconds("join_within"),
                note=progress.note,
            )
        if self.json:
            answer({"folder": str(end.folder), "host_index": self.host_index, "ended": end.why})
        else:
            answer(f"host {self.host_index}: {end.why}\nrun folder: {end.folder}")
        return end.exit_code

    def _rehearse(self) -> int:
        from twofold.document import read_plan
        from twofold.measure.rehearsal import rehearse_plan
        from twofold.report.rehearsal_text import rehearsal_text

        path = self.plan / "plan.json" if self.plan.is_dir() else self.plan
        with watcher() as progress:
            told = rehearse_plan(path, read_plan(path), progress=progress)
        answer(told.as_mapping() if self.json else rehearsal_text(told))
        return 0 if told.agrees else EXIT_NO

    def _write_script(self) -> int:
        from twofold.document import write_plan
        from twofold.launch.slurm import batch_script, submit, write_script
        from twofold.measure.execution import plan_to_run, run_folder

        document = plan_to_run(self.plan)
        options = (
            f"--checkpoint-every={self.checkpoint_every}",
            f"--max-restarts={self.max_restarts}",
            f"--join-within={self.join_within}",
            f"--lost-after={self.lost_after}",
            *(() if self.interface is None else (f"--interface={self.interface}",)),
        )
        batch_script(document, self.runs, num_nodes=self.hosts, options=options)
        folder = run_folder(self.plan, self.runs).resolve()
        text = batch_script(document, folder, num_nodes=self.hosts, options=options)
        write_plan(document, folder / "plan.json")
        script = write_script(text, folder)
        job = submit(script) if self.submit else None
        if self.json:
            answer({"folder": str(folder), "script": str(script), "job": job})
        elif job is None:
            answer(f"run folder: {folder}\nnext: sbatch {shlex.quote(str(script))}")
        else:
            answer(f"run folder: {folder}\nsubmitted: job {job}; its log is in {folder}/logs")
        return 0

    def _lost_after_s(self) -> float:
        silence_s = self._seconds("lost_after")
        if silence_s < _LEAST_SILENCE_S:
            raise InputError(
                f"machines that say nothing for {silence_s:g} s would count as lost, and they "
                "speak once a second",
                at="--lost-after",
                help=f"use at least {_LEAST_SILENCE_S:g} s",
            )
        return silence_s

    def _checkpoint_every(self) -> Interval:
        return "best" if self.checkpoint_every == "best" else self._seconds("checkpoint_every")

    def _seconds(self, option: str) -> float:
        at = "--" + option.replace("_", "-")
        return read_option(getattr(self, option), parse_seconds, at=at)
