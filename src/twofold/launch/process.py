"""Processes that cannot outlive us: each leads its own group, and dies when we are killed."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from twofold.errors import InputError

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None

Process = subprocess.Popen[bytes]


def start_process(
    name: str,
    argv: Sequence[str],
    *,
    output: IO[bytes],
    environment: dict[str, str],
    working_folder: Path | None = None,
    keep_fds: Sequence[int] = (),
) -> Process:
    """Start it in a session of its own, with `environment` added to ours."""
    ours = os.getpid()
    try:
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment},
            cwd=working_folder,
            start_new_session=True,
            pass_fds=keep_fds,
            preexec_fn=lambda: _die_with(ours),
        )
    except OSError as error:
        raise InputError(
            f"'{argv[0]}' cannot be started: {error.strerror}",
            at=f"job '{name}'",
            help="check the command and the folder it starts in",
        ) from error


def signal_group(process: Process, number: int) -> None:
    """Signal the process and whatever it started; nothing happens where all are gone."""
    try:
        os.killpg(process.pid, number)
    except (ProcessLookupError, PermissionError):
        return


def children_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _die_with(parent: int) -> None:
    """Runs in the child before it starts: if we are killed, it is killed (Linux)."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
