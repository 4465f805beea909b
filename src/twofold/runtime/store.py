"""`python -m twofold.runtime.store`: the key-value store of one attempt, in a process of its own.

Ranks find each other through it. It lives outside of them, so that it survives when one of them
dies, and it is thrown away with the attempt, so that no key of dead ranks is read by new ones
(torchrun keeps one store for every restart, and gloo then connects to the dead). `--listen-fd`
takes a socket that already listens: its port is known, and ranks may connect, before this
process has imported anything. Ctrl-C and SIGTERM, which a batch system sends to every process,
are left to the supervisor: ranks still save through the store then.
"""

from __future__ import annotations

import argparse
import json
import signal
import socket
from datetime import timedelta

_TIMEOUT = timedelta(seconds=300)


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    parser = argparse.ArgumentParser(prog="python -m twofold.runtime.store", description=__doc__)
    parser.add_argument("--address", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--listen-fd", type=int, default=None)
    arguments = parser.parse_args()
    if arguments.listen_fd is None:
        listener = socket.create_server((arguments.address, arguments.port))
    else:
        listener = socket.socket(fileno=arguments.listen_fd)
    host, port = listener.getsockname()[:2]
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    store = TCPStore(
        host,
        port,
        is_master=True,
        wait_for_workers=False,
        timeout=_TIMEOUT,
        master_listen_fd=listener.detach(),
    )
    print(json.dumps({"port": store.port}), flush=True)
    signal.pause()


if __name__ == "__main__":
    main()
