"""Hosts with slow links on one machine, for the benchmarks (root and `tools/lab/netlab.py`)."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

NETLAB = [sys.executable, str(Path(__file__).parents[1] / "tools" / "lab" / "netlab.py")]
NAMES = ("a", "b", "c")
FIRST_ADDRESS = "10.77.0.1"
PORT = 29617


@contextmanager
def slow_hosts(mbit_per_s: Sequence[float], *, most_s: int = 900) -> Iterator[tuple[str, ...]]:
    """So many hosts, each with a port of that rate (0: no limit); taken down in any case."""
    names = NAMES[: len(mbit_per_s)]
    hosts = [f"{name}:rate={rate:g}" for name, rate in zip(names, mbit_per_s, strict=True)]
    subprocess.run([*NETLAB, "up", *hosts, "--max-s", str(most_s)], check=True, capture_output=True)
    try:
        yield names
    finally:
        subprocess.run([*NETLAB, "down"], check=True)


def burst_bytes(mbit_per_s: float) -> float:
    """What the lab's token buckets let pass at once: about 2 ms, at least 16 KiB."""
    return 1024.0 * max(16, int(mbit_per_s / 8 * 2))


def interface_bytes(host: str) -> int:
    """What the host's port has sent, frames and acknowledgements included."""
    done = subprocess.run(
        [*NETLAB, "exec", host, "--", "cat", "/proc/net/dev"],
        check=True,
        capture_output=True,
        text=True,
    )
    line = next(line for line in done.stdout.splitlines() if line.strip().startswith("eth0:"))
    return int(line.partition(":")[2].split()[8])


def run_on(
    commands: Mapping[str, Sequence[str]],
    *,
    environment: Mapping[str, Mapping[str, str]] | None = None,
    patience_s: float,
) -> str:
    """One command a host, together; what the first printed. The first that fails ends all."""
    processes = [
        subprocess.Popen(
            [*NETLAB, "exec", host, "--", *command],
            env=os.environ | {"OMP_NUM_THREADS": "1"} | dict((environment or {}).get(host, {})),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for host, command in commands.items()
    ]
    try:
        outputs = [process.communicate(timeout=patience_s) for process in processes]
    finally:
        for process in processes:
            process.kill()
    for host, process, (_, error) in zip(commands, processes, outputs, strict=True):
        if process.returncode:
            raise RuntimeError(f"host {host} ended with {process.returncode}: {error[-2000:]}")
    return outputs[0][0]
