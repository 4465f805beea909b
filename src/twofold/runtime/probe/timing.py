"""Repeated timing of one call on one device, honest about disturbance."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

Row = dict[str, Any]
"""One measurement, flat, ready for JSON. `kind` says which other keys there are."""

_LEAST_REPEATS = 2
_MOST_REPEATS = 200
_PATIENCE = 2.0
_MOST_CORRECTION = 3.0
_CLEAN_WAIT = 0.02
DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """Where and how long to measure. `seconds` is the time for one call's repetitions."""

    device: torch.device
    seconds: float

    def synchronise(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Quartiles of the repetitions, without the time in which our threads had no core.

    `clean_fraction` is the share of repetitions during which no thread of ours stood in the
    run queue, ready but without a core: below one, someone else wanted the cores.
    """

    low_s: float
    median_s: float
    high_s: float
    repeats: int
    clean_fraction: float

    @property
    def spread(self) -> float:
        """Relative half-width of the middle half."""
        return (self.high_s - self.low_s) / (2 * self.median_s) if self.median_s > 0 else 0.0


def time_call(bench: Bench, call: Callable[[], object]) -> Timing:
    """Time `call` after one untimed run, for about `bench.seconds`, at least twice.

    Undisturbed repetitions alone are used where there are enough, and are waited for as long
    again; otherwise all are, each less the time it waited for a core. A call that
    takes longer than the budget is timed once.
    """
    warm_s, _ = _once(bench, call)
    least = 1 if warm_s > 1.5 * bench.seconds else _LEAST_REPEATS
    clean: list[float] = []
    corrected: list[float] = []
    start_s = time.perf_counter()
    while len(corrected) < _MOST_REPEATS:
        spent_s = time.perf_counter() - start_s
        patience = 1.0 if len(clean) >= least else _PATIENCE
        if spent_s >= patience * bench.seconds and len(corrected) >= least:
            break
        time_s, waited_s = _once(bench, call)
        corrected.append(max(time_s - waited_s, time_s / _MOST_CORRECTION))
        if waited_s <= _CLEAN_WAIT * time_s:
            clean.append(time_s)
    chosen = sorted(clean if len(clean) >= least else corrected)
    last = len(chosen) - 1
    return Timing(
        low_s=chosen[last // 4],
        median_s=chosen[last // 2],
        high_s=chosen[last - last // 4],
        repeats=len(chosen),
        clean_fraction=len(clean) / len(corrected),
    )


def timing_fields(timing: Timing) -> Row:
    return {
        "spread": timing.spread,
        "repeats": timing.repeats,
        "clean_fraction": timing.clean_fraction,
    }


@contextmanager
def conditions(precision: str, threads: int) -> Iterator[None]:
    """Run under so many CPU threads and with tf32 allowed or not; restores both."""
    before_threads = torch.get_num_threads()
    before_tf32 = torch.backends.cuda.matmul.allow_tf32
    torch.set_num_threads(threads)
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    try:
        yield
    finally:
        torch.set_num_threads(before_threads)
        torch.backends.cuda.matmul.allow_tf32 = before_tf32


def _once(bench: Bench, call: Callable[[], object]) -> tuple[float, float]:
    """Seconds of one call, and how long our threads waited for a core meanwhile."""
    bench.synchronise()
    before_s = _waited_s()
    start_s = time.perf_counter()
    call()
    bench.synchronise()
    time_s = time.perf_counter() - start_s
    return time_s, _waited_s() - before_s


def _waited_s() -> float:
    """Time that the threads of this process were runnable but not running (Linux; else 0)."""
    total_ns = 0
    try:
        for thread in os.scandir("/proc/self/task"):
            with open(f"{thread.path}/schedstat", "rb") as stream:  # noqa: PTH123 (hot path)
                total_ns += int(stream.read().split()[1])
    except (OSError, IndexError, ValueError):
        return 0.0
    return total_ns * 1e-9
