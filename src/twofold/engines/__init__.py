"""Whatever can take work: the embedded PyTorch runtime, and a user's own command."""

from twofold.engines.command import Command, command_job, read_command_run
from twofold.engines.embedded import embedded_job, read_run
from twofold.engines.run import Run

__all__ = ["Command", "Run", "command_job", "embedded_job", "read_command_run", "read_run"]
