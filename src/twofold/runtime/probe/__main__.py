"""`python -m twofold.runtime.probe --out rows.jsonl`: measure, writing rows as they come.

Progress goes to stderr as JSON lines: {"event": "progress", "done", "total", "what"}.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import time
from pathlib import Path

import torch

from twofold.runtime.allocator import keep_freed_memory
from twofold.runtime.probe.schedule import ROUNDS, Task, plan_tasks
from twofold.runtime.probe.timing import Bench, Row

_CALLS_PER_TASK = 2.0
_LEAST_SECONDS = 0.01


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m twofold.runtime.probe")
    parser.add_argument("--out", type=Path, required=True, help="rows are appended to this file")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--seconds", type=float, default=60.0, help="about how long to take")
    options = parser.parse_args(arguments)
    keep_freed_memory()
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        error = {"event": "error", "what": "PyTorch sees no CUDA device"}
        print(json.dumps(error), file=sys.stderr)
        return 3
    torch.manual_seed(0)
    measure(plan_tasks(device), device, options.seconds, options.out)
    return 0


def measure(tasks: list[Task], device: torch.device, seconds: float, out: Path) -> None:
    """Run the tasks in rounds, each in an order of its own, so that a disturbance or a drift of
    the machine falls on a few repetitions of many things and not on all of one.

    Every task runs once, whatever it takes; further rounds only while there is time left.
    A task that the device or framework does not support leaves a row that says so.
    """
    rounds = in_rounds(tasks)
    end_s = time.perf_counter() + seconds
    with out.open("a", encoding="utf-8") as stream:
        for done, task in enumerate(rounds):
            left_s = end_s - time.perf_counter()
            if done >= len(tasks) and left_s <= 0:
                break
            _report(done, len(rounds), task.what)
            share_s = max(_LEAST_SECONDS, left_s / (_CALLS_PER_TASK * (len(rounds) - done)))
            for row in _attempt(task, Bench(device=device, seconds=share_s)):
                stream.write(json.dumps(row) + "\n")
            stream.flush()
        _report(len(rounds), len(rounds), "done")


def in_rounds(tasks: list[Task]) -> list[Task]:
    """All rounds after one another, each shuffled within its numbers of threads; the order is
    the same on every machine."""
    order = random.Random(0)
    rounds: list[Task] = []
    for index in range(ROUNDS):
        due = [task for task in tasks if task.rounds > index]
        order.shuffle(due)
        rounds += sorted(due, key=lambda task: task.threads)
    return rounds


def _attempt(task: Task, bench: Bench) -> list[Row]:
    try:
        return task.run(bench)
    except (RuntimeError, OSError, subprocess.SubprocessError) as error:
        return [{"kind": "failed", "what": task.what, "error": str(error)[:500]}]


def _report(done: int, total: int, what: str) -> None:
    line = {"event": "progress", "done": done, "total": total, "what": what}
    print(json.dumps(line), file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
