"""Running Jobs: as supervised processes on this machine, on many machines, under Slurm."""

from twofold.launch.job import Finished, Job
from twofold.launch.local import run_job

__all__ = ["Finished", "Job", "run_job"]
