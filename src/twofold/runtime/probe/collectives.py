"""All-reduce over gloo: how long a message takes to be noticed, and what a byte costs.

`python -m twofold.runtime.probe.collectives RANK RANKS ADDRESS PORT [--most-bytes ..]` is one rank;
the first prints rows. The probe starts two on this machine's loopback, whose network costs
nothing, so that what is left is the path through both processors. `benchmarks/links.py` starts
them on hosts with slow links.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import TCPStore

from twofold.runtime.probe.timing import Bench, Row

SIZES = tuple(2**exponent for exponent in range(10, 25, 2))
_REPEATS = 12
_FEWEST_REPEATS = 3
_SECONDS_PER_SIZE = 0.8
_ROUND_TRIPS = 40
_REST_S = 0.03
"""Between repetitions, so that each finds the link idle, as after a step's computation. Shorter
than the time after which TCP starts slowly again."""
_PATIENCE_S = 120.0


def probe_all_reduce(bench: Bench) -> list[Row]:
    """Times of a message and of all-reduces of fp32 by bytes, between two processes here."""
    if not dist.is_available() or not dist.is_gloo_available():
        return []
    port = _free_port()
    command = [sys.executable, "-m", "twofold.runtime.probe.collectives"]
    workers = [
        subprocess.Popen(
            [*command, str(rank), "2", "127.0.0.1", str(port)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | {"GLOO_SOCKET_IFNAME": "lo"},
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


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m twofold.runtime.probe.collectives")
    parser.add_argument("rank", type=int)
    parser.add_argument("ranks", type=int)
    parser.add_argument("address")
    parser.add_argument("port", type=int)
    parser.add_argument("--most-bytes", type=int, default=SIZES[-1])
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    store = TCPStore(
        options.address,
        options.port,
        options.ranks,
        is_master=options.rank == 0,
        timeout=timedelta(seconds=_PATIENCE_S),
    )
    dist.init_process_group("gloo", store=store, rank=options.rank, world_size=options.ranks)
    rows = [_time_message(options.rank)]
    rows += [
        _time_size(options.ranks, size_bytes)
        for size_bytes in SIZES
        if size_bytes <= options.most_bytes
    ]
    if options.rank == 0:
        print("\n".join(json.dumps(row) for row in rows))
    dist.destroy_process_group()
    return 0


def _time_message(rank: int) -> Row:
    """Half a round trip of four bytes between the first two ranks."""
    tensor = torch.zeros(1)
    times_s = []
    for _ in range(_ROUND_TRIPS):
        start_s = time.perf_counter()
        if rank == 0:
            dist.send(tensor, 1)
            dist.recv(tensor, 1)
        elif rank == 1:
            dist.recv(tensor, 0)
            dist.send(tensor, 0)
        times_s.append((time.perf_counter() - start_s) / 2)
    dist.barrier()
    return {
        "kind": "message",
        "backend": "gloo",
        "time_s": statistics.median(times_s),
        "least_s": min(times_s),
    }


def _time_size(ranks: int, size_bytes: int) -> Row:
    tensor = torch.zeros(size_bytes // 4)
    start_s = time.perf_counter()
    dist.all_reduce(tensor)
    took_s = torch.tensor(time.perf_counter() - start_s)
    dist.broadcast(took_s, 0)
    repeats = min(_REPEATS, max(_FEWEST_REPEATS, int(_SECONDS_PER_SIZE / float(took_s))))
    times_s, sent_bytes = [], 0
    for _ in range(repeats):
        dist.barrier()
        time.sleep(_REST_S)
        before = _sent_bytes()
        start_s = time.perf_counter()
        dist.all_reduce(tensor)
        times_s.append(time.perf_counter() - start_s)
        time.sleep(_REST_S / 3)
        sent_bytes += _sent_bytes() - before
    return {
        "kind": "all_reduce",
        "backend": "gloo",
        "processes": ranks,
        "bytes": size_bytes,
        "time_s": statistics.median(times_s),
        "least_s": min(times_s),
        "most_s": max(times_s),
        "repeats": repeats,
        "sent_bytes": sent_bytes / repeats,
    }


def _sent_bytes() -> int:
    """What the interface that gloo uses has sent, frames and acknowledgements included."""
    name = os.environ.get("GLOO_SOCKET_IFNAME", "lo")
    for line in Path("/proc/net/dev").read_text().splitlines():
        interface, _, counters = line.partition(":")
        if interface.strip() == name:
            return int(counters.split()[8])
    return 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())
