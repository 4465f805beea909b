"""Running Jobs: here, as supervised processes on this machine."""

from twofold.launch.job import Finished, Job
from twofold.launch.local import run_job

__all__ = ["Finished", "Job", "run_job"]
