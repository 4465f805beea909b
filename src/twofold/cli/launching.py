"""The verb that starts a plan, or an export of one, where the machines are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import tyro

from twofold.cli.choices import choose
from twofold.cli.output import answer
from twofold.errors import InputError, JobFailed

if TYPE_CHECKING:
    from twofold.launch.kubernetes import Kind
    from twofold.launch.launchable import Launchable


@dataclass(frozen=True, kw_only=True)
class Launch:
    """Start a plan, or a folder of `twofold export`, here, under Slurm, on Kubernetes or on Ray."""

    plan: tyro.conf.Positional[Path]
    """`plan.json`, or the folder of an export."""
    on: str = "local"
    """local, slurm, kubernetes or ray."""
    dry_run: bool = False
    """Print what would be sent or started, and do nothing."""
    runs: Path = Path("runs")
    """Where the run folder of a `plan.json` is made. Many machines must share it."""
    manifest: str = "train-job"
    """Kubernetes: a Kubeflow 'train-job', or a 'job-set'."""
    image: str | None = None
    """Kubernetes: the container image, with the engine (or Twofold) installed."""
    queue: str | None = None
    """Kubernetes: the queue of Kueue that admits it."""
    claim: str | None = None
    """Kubernetes: a volume claim that all machines share, mounted at /workspace."""
    json: bool = False
    """Print one JSON document."""

    def execute(self) -> int:
        place = choose(self.on, ("local", "slurm", "kubernetes", "ray"), at="--on")
        for name in ("image", "queue", "claim"):
            if getattr(self, name) is not None and place != "kubernetes":
                raise InputError(
                    f"--{name} is for Kubernetes, and the plan goes to {place}",
                    at=f"--{name}",
                    help="leave it out, or use --on kubernetes",
                )
        if place == "kubernetes":
            return self._on_kubernetes()
        if not self._is_export():
            return self._plan_on(place)
        launch = self._launchable()
        return {"local": self._here, "slurm": self._on_slurm, "ray": self._on_ray}[place](launch)

    def _is_export(self) -> bool:
        return (self.plan / "export.json").is_file()

    def _launchable(self) -> Launchable:
        from twofold.engines.embedded import embedded_launchable
        from twofold.engines.export import launchable

        return launchable(self.plan) if self._is_export() else embedded_launchable(self.plan)

    def _plan_on(self, place: str) -> int:
        """The embedded runtime, which supervises its own ranks."""
        from twofold.cli.running import Run
        from twofold.document import read_plan
        from twofold.launch.slurm import batch_script
        from twofold.measure.execution import plan_to_run

        if place == "ray":
            raise InputError(
                "the embedded runtime supervises its own ranks and is not started by Ray",
                at="--on",
                help="export the plan (`twofold export plan.json --to accelerate`), and launch "
                "that folder",
            )
        if not self.dry_run:
            slurm = place == "slurm"
            return Run(
                plan=self.plan, runs=self.runs, slurm=slurm, submit=slurm, json=self.json
            ).execute()
        if place == "slurm":
            document, folder = plan_to_run(self.plan), (self.runs / self.plan.stem).resolve()
            self._tell(batch_script(document, folder, num_nodes=None, options=()))
            return 0
        path = self.plan / "plan.json" if self.plan.is_dir() else self.plan
        self._tell(f"twofold run {path}  # {read_plan(path).plan.num_ranks} ranks on this machine")
        return 0

    def _here(self, launch: Launchable) -> int:
        from twofold.launch import Job, run_job

        if launch.num_nodes > 1:
            raise InputError(
                f"the plan fills {launch.num_nodes} machines, and this is one",
                at="--on",
                help="launch it on slurm, kubernetes or ray, or start launch.sh on each machine",
            )
        command = ("bash", "-c", launch.command)
        if self.dry_run:
            self._tell(f"cd {launch.folder} && {launch.command}")
            return 0
        job = Job(
            name=launch.name, argv=command, folder=launch.folder, working_folder=launch.folder
        )
        done = run_job(job)
        if done.returncode:
            raise JobFailed(
                f"{launch.name} ended with code {done.returncode}:\n{done.last_lines}",
                at=str(job.log),
                help="the log has the whole output",
            )
        self._tell(f"done in {done.wall_s:.1f} s; metrics and log are in {launch.folder}")
        return 0

    def _on_slurm(self, launch: Launchable) -> int:
        from twofold.launch.slurm import command_script, submit, write_script

        text = command_script(launch)
        if self.dry_run:
            self._tell(text)
            return 0
        job = submit(write_script(text, launch.folder))
        self._tell(f"submitted: job {job}; its log is in {launch.folder}/logs")
        return 0

    def _on_kubernetes(self) -> int:
        from twofold.launch.kubernetes import apply, manifest_text, manifests

        kind = choose(self.manifest, ("train-job", "job-set"), at="--manifest")
        if self.image is None:
            raise InputError(
                "a container needs an image",
                at="--image",
                help="name one with the engine installed (for a plan.json: with Twofold)",
            )
        documents = manifests(
            self._launchable(),
            kind=cast("Kind", kind),
            image=self.image,
            queue=self.queue,
            claim=self.claim,
        )
        if self.dry_run:
            answer(documents if self.json else manifest_text(documents))
            return 0
        self._tell(apply(manifest_text(documents)))
        return 0

    def _on_ray(self, launch: Launchable) -> int:
        from twofold.launch.ray import driver_arguments, ray_job

        if self.dry_run:
            self._tell(f"python ray_driver.py {' '.join(driver_arguments(launch))}")
            return 0
        from twofold.launch import run_job

        job = ray_job(launch)
        done = run_job(job)
        if done.returncode:
            raise JobFailed(
                f"the driver ended with code {done.returncode}:\n{done.last_lines}",
                at=str(job.log),
                help="the log has the whole output",
            )
        self._tell(f"done in {done.wall_s:.1f} s; metrics are in {launch.folder}")
        return 0

    def _tell(self, text: str) -> None:
        answer({"on": self.on, "dry_run": self.dry_run, "text": text} if self.json else text)
