"""One process a run folder: a second one would tear the first one's metrics."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from twofold.errors import EnvironmentLack


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; EnvironmentLack when another process holds it."""
    with (folder / ".lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise EnvironmentLack(
                "another process is running in this folder",
                at=str(folder),
                help="wait for it, or end it first",
            ) from error
        yield
