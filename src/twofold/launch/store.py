"""The store through which the ranks of one attempt find each other, in a process of its own."""

from __future__ import annotations

import os
import signal
import socket
import sys
from pathlib import Path
from types import TracebackType

from twofold.errors import EnvironmentLack
from twofold.launch.process import signal_group, start_process


class Store:
    """A TCPStore at a fresh port of `address`.

    Its socket listens before its process has started, so that ranks may start at the same time.
    """

    def __init__(self, address: str, folder: Path) -> None:
        self.address = address
        log = store_log(folder)
        listener = listen(address, 0)
        self.port: int = listener.getsockname()[1]
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
            output = log.open("ab")
        except OSError as error:
            listener.close()
            raise EnvironmentLack(
                f"the run folder cannot be written: {error.strerror}",
                at=str(log),
                help="check free space and permission",
            ) from error
        with listener, output:
            number = listener.fileno()
            self._process = start_process(
                "store",
                (sys.executable, "-m", "twofold.runtime.store", "--listen-fd", str(number)),
                output=output,
                environment={"OMP_NUM_THREADS": "1"},
                keep_fds=(number,),
            )

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        signal_group(self._process, signal.SIGKILL)
        self._process.wait()

    @property
    def environment(self) -> dict[str, str]:
        """What tells a rank where it is, and that it need not be served."""
        return {
            "MASTER_ADDR": self.address,
            "MASTER_PORT": str(self.port),
            "TWOFOLD_STORE": "hosted",
        }

    @property
    def ended(self) -> bool:
        """Whether its process has ended, which it does not by itself."""
        return self._process.poll() is not None


def store_log(folder: Path) -> Path:
    return folder / "logs" / "store.log"


def listen(address: str, port: int) -> socket.socket:
    """A socket that listens at this address of ours and at no other."""
    try:
        return socket.create_server((address, port), backlog=1024)
    except OSError as error:
        raise EnvironmentLack(
            f"cannot listen at {address}:{port}: {os.strerror(error.errno or 0)}",
            at="--head",
            help="use an address of this machine and a free port",
        ) from error
