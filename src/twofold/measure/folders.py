"""A fresh folder for every run and every proof, even for two in one second."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from twofold.errors import EnvironmentLack


def free_folder(runs: Path, name: str) -> Path:
    """Make and return `runs`/<time>-<name>; the clash of two in a second gets a number."""
    stamp = f"{datetime.now().astimezone():%Y-%m-%d-%H%M%S}-{name}"
    for attempt in range(100):
        folder = runs / (stamp if attempt == 0 else f"{stamp}-{attempt + 1}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise EnvironmentLack(
                f"the folder cannot be made: {error.strerror}",
                at=str(folder),
                help="check permission and free space, or name another place with --runs",
            ) from error
        return folder
    raise EnvironmentLack("a hundred runs in a second", at=str(runs), help="name another --runs")
