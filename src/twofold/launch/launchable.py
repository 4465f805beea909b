"""`Launchable`: a command for every machine, whoever made it and wherever it will run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Launchable:
    """The same shell command on `num_nodes` machines, which start `ranks_per_node` ranks each.

    The command finds NODE_RANK (from 0), MASTER_ADDR and MASTER_PORT (of machine 0) in its
    environment, and the `files` of `folder` in its working folder. `resource` is how a cluster
    counts what a machine needs ("nvidia.com/gpu", "cpu"), `resources_per_node` how many. `data`
    is a file of this machine that the command reads.
    """

    name: str
    command: str
    folder: Path
    files: tuple[str, ...]
    num_nodes: int
    ranks_per_node: int
    resource: str
    resources_per_node: int
    data: str | None = None

    @property
    def on_cpu(self) -> bool:
        return self.resource == "cpu"
