"""All-reduce between two processes of this machine, over gloo.

`python -m twofold.runtime.probe.processes RANK PORT` is one of the two; the first prints rows.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time

import torch
import torch.distributed as dist

from twofold.runtime.probe.timing import Bench, Row

_SIZES = (2**10, 2**16, 2**20, 2**23)
_REPEATS = 12
_PATIENCE_S = 60.0


def probe_all_reduce(bench: Bench) -> list[Row]:
    """Median time of an all-reduce of fp32 over two processes, by bytes."""
    if not dist.is_available() or not dist.is_gloo_available():
        return []
    port = _free_port()
    workers = [
        subprocess.Popen(
            [sys.executable, "-m", "twofold.runtime.probe.processes", str(rank), str(port)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        printed, _ = workers[0].communicate(timeout=_PATIENCE_S)
        workers[1].communicate(timeout=_PATIENCE_S)
    finally:
        for worker in workers:
            worker.kill()
    return [json.loads(line) for line in printed.splitlines()]


def main(arguments: list[str]) -> int:
    rank, port = int(arguments[0]), int(arguments[1])
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    for size_bytes in _SIZES:
        row = _time_size(size_bytes)
        if rank == 0:
            print(json.dumps(row))
    dist.destroy_process_group()
    return 0


def _time_size(size_bytes: int) -> Row:
    tensor = torch.zeros(size_bytes // 4)
    dist.all_reduce(tensor)
    times_s = []
    for _ in range(_REPEATS):
        start_s = time.perf_counter()
        dist.all_reduce(tensor)
        times_s.append(time.perf_counter() - start_s)
    times_s.sort()
    return {
        "kind": "all_reduce",
        "backend": "gloo",
        "processes": 2,
        "bytes": size_bytes,
        "time_s": times_s[len(times_s) // 2],
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
