"""Jobs of stand-in ranks, what they leave, and whether they are gone."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twofold.launch import Job

WORKER = Path(__file__).with_name("worker.py")


def stand_in_job(folder: Path, *options: str, num_ranks: int = 2, **fields: Any) -> Job:
    """`options` are those of worker.py."""
    folder.mkdir(parents=True, exist_ok=True)
    return Job(
        name="stand-in",
        argv=(sys.executable, str(WORKER), str(folder), *options),
        folder=folder,
        metrics=(folder / "metrics.jsonl",),
        environment={"OMP_NUM_THREADS": "1"},
        num_ranks=num_ranks,
        **fields,
    )


def curve(folder: Path) -> list[tuple[int, float]]:
    """(step, loss) as the run's metrics have it."""
    rows = read_lines(folder / "metrics.jsonl")
    return [(row["step"], row["loss"]) for row in rows if row["event"] == "step"]


def events(folder: Path) -> list[str]:
    return [row["event"] for row in read_lines(folder / "events.jsonl")]


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Whole rows; a line that is being written, or a file being replaced, waits."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return []
    rows = []
    for line in lines:
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows


def expected_curve(steps: int, *, global_batch: int = 12) -> list[tuple[int, float]]:
    """What the stand-in computes, computed here."""
    modulus, state, points = 2**31 - 1, 1, []
    for step in range(steps):
        samples = range(step * global_batch, (step + 1) * global_batch)
        total = sum((7919 * i * i + 104729) % modulus for i in samples)
        state = (48271 * state + total) % modulus
        points.append((step + 1, state / modulus))
    return points


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def processes_of(folder: Path) -> list[int]:
    """Every process here that has the folder in its command or was started for it."""
    mine = str(folder).encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                command = (entry / "cmdline").read_bytes()
                output = str((entry / "fd" / "1").readlink()).encode()
            except OSError:
                continue
            if mine in command or mine in output:
                found.append(int(entry.name))
    return found


def rank_process(folder: Path, rank: int) -> int:
    """The process of the folder's run that is the rank; waits until there is one."""
    found: list[int] = []

    def look() -> bool:
        for pid in processes_of(folder):
            try:
                variables = (Path("/proc") / str(pid) / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if f"RANK={rank}".encode() in variables:
                found.append(pid)
        return bool(found)

    wait_for(look)
    return found[0]


def wait_for(condition: Callable[[], object], seconds: float = 300.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.02)
