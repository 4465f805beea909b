"""Ray: a driver script for Ray Train that starts the launch's command on one worker a machine."""

from __future__ import annotations

import importlib.util
import sys
from importlib.resources import files
from pathlib import Path

from twofold.document import write_text
from twofold.errors import EnvironmentLack
from twofold.launch.job import Job
from twofold.launch.launchable import Launchable

_RESOURCES = {"cpu": "CPU", "nvidia.com/gpu": "GPU", "amd.com/gpu": "GPU", "google.com/tpu": "TPU"}


def driver_arguments(launch: Launchable) -> tuple[str, ...]:
    """Of the driver: what to start, on how many machines, with what on each."""
    return (
        f"--machines={launch.num_nodes}",
        f"--resource={_RESOURCES[launch.resource]}",
        f"--amount={launch.resources_per_node}",
        f"--command={launch.command}",
    )


def driver_text() -> str:
    return (files("twofold.launch") / "ray_driver.py.txt").read_text(encoding="utf-8")


def ray_job(launch: Launchable) -> Job:
    """The driver as a process here. It joins the cluster that RAY_ADDRESS names, or starts one on
    this machine."""
    if importlib.util.find_spec("ray") is None:
        raise EnvironmentLack("Ray is not installed", help="pip install 'ray[train]'")
    path = launch.folder / "ray_driver.py"
    write_text(path, driver_text())
    return Job(
        name=launch.name,
        argv=(sys.executable, str(path), *driver_arguments(launch)),
        folder=launch.folder,
        working_folder=Path(launch.folder),
    )
