"""All-reduce between two processes of this machine, over gloo."""

from __future__ import annotations

import socket
import sys
import time

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing

from twofold.runtime.probe.timing import Bench, Row

_SIZES = (2**10, 2**16, 2**20, 2**23)
_REPEATS = 12


def probe_all_reduce(bench: Bench) -> list[Row]:
    """Median time of an all-reduce of fp32 over two processes, by bytes."""
    if sys.platform == "win32" or not dist.is_gloo_available():
        return []
    context = multiprocessing.get_context("spawn")
    results = context.SimpleQueue()
    port = _free_port()
    workers = [context.Process(target=_work, args=(rank, port, results)) for rank in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=60)
        if worker.is_alive():
            worker.kill()
    return [] if results.empty() else list(results.get())


def _work(rank: int, port: int, results: multiprocessing.SimpleQueue[list[Row]]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2
    )
    rows: list[Row] = []
    for size_bytes in _SIZES:
        tensor = torch.zeros(size_bytes // 4)
        dist.all_reduce(tensor)
        times_s = []
        for _ in range(_REPEATS):
            start_s = time.perf_counter()
            dist.all_reduce(tensor)
            times_s.append(time.perf_counter() - start_s)
        times_s.sort()
        rows.append(
            {
                "kind": "all_reduce",
                "backend": "gloo",
                "processes": 2,
                "bytes": size_bytes,
                "time_s": times_s[len(times_s) // 2],
            }
        )
    dist.destroy_process_group()
    if rank == 0:
        results.put(rows)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
