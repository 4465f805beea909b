"""A fresh folder for every run and every proof, even for two in one second."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
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


@contextmanager
def alone_in_run(folder: Path) -> Iterator[None]:
    """Hold the run folder against a second `twofold run`, before anything is written to it.

    The ranks' own lock comes too late for that: it is theirs, not that of the one who starts them.
    """
    try:
        handle = (folder / ".run.lock").open("w")
    except OSError as error:
        raise EnvironmentLack(
            f"the run folder cannot be written: {error.strerror}",
            at=str(folder),
            help="check free space and permission",
        ) from error
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise EnvironmentLack(
                "another `twofold run` is under way in this folder",
                at=str(folder),
                help="wait for it, or end it first",
            ) from error
        except OSError as error:
            raise EnvironmentLack(
                f"the run folder cannot be locked: {error.strerror}",
                at=str(folder),
                help="name a folder on another filesystem with --runs",
            ) from error
        yield
