"""What is measured, in which order, at which sizes: a list of tasks that fits the budget."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch

from twofold.plan import Attention
from twofold.runtime.probe.attention import AttentionShape, probe_attention
from twofold.runtime.probe.collectives import probe_all_reduce
from twofold.runtime.probe.operations import OPERATIONS, probe_operation
from twofold.runtime.probe.products import (
    LinearShape,
    probe_linear,
    probe_orthogonalise,
    probe_roof,
)
from twofold.runtime.probe.system import (
    probe_compiler,
    probe_copy,
    probe_disk,
    probe_machine,
    probe_startup,
    usable_threads,
)
from twofold.runtime.probe.timing import Bench, Row
from twofold.runtime.probe.updates import UPDATES, probe_batch, probe_update

ROUNDS = 3
_HOPELESS_RATIO = 4.0

_CPU_LINEAR: tuple[LinearShape, ...] = (
    (256, 64, 256),
    (512, 128, 128),
    (512, 128, 512),
    (512, 256, 256),
    (2048, 128, 384),
    (2048, 128, 512),
    (1024, 256, 1024),
    (2048, 256, 256),
    (1024, 512, 2048),
)
_CPU_ATTENTION: tuple[AttentionShape, ...] = (
    (4, 2, 128, 64),
    (16, 2, 128, 64),
    (4, 4, 256, 64),
    (4, 4, 256, 32),
    (4, 2, 256, 128),
    (2, 4, 512, 64),
    (1, 2, 1024, 64),
)
_CPU_MATRICES = ((4, 128, 128), (4, 384, 128), (4, 512, 128), (6, 256, 256), (4, 1024, 256))
_CPU_ELEMENTS = (2**11, 2**15, 2**18, 2**21)
_CPU_TENSORS = (2**7, 2**14, 2**16, 2**18)

_GPU_LINEAR: tuple[LinearShape, ...] = (
    (1024, 256, 1024),
    (4096, 256, 256),
    (4096, 512, 2048),
    (8192, 768, 768),
    (8192, 768, 3072),
    (16384, 1024, 4096),
    (16384, 2048, 2048),
    (8192, 4096, 4096),
)
_GPU_ATTENTION: tuple[AttentionShape, ...] = (
    (8, 4, 256, 64),
    (16, 8, 512, 64),
    (32, 12, 1024, 64),
    (8, 16, 2048, 64),
    (8, 8, 1024, 128),
    (2, 16, 4096, 64),
)
_GPU_MATRICES = ((6, 256, 256), (12, 768, 768), (12, 3072, 768), (12, 2048, 2048))
_GPU_ELEMENTS = (2**14, 2**18, 2**21, 2**24, 2**27)
_GPU_TENSORS = (2**7, 2**16, 2**20, 2**23)

_HOPELESS_LINEAR: tuple[LinearShape, ...] = ((64, 64, 256), (128, 128, 128))
_HOPELESS_ATTENTION: tuple[AttentionShape, ...] = ((1, 2, 64, 64),)
_HOPELESS_MATRICES = ((1, 64, 64),)
_BATCH_TOKENS = (2**9, 2**12, 2**15)


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One measurement. `rounds` is how often it is repeated, far apart in time. Tasks of equal
    `threads` run after one another: changing the number is slow; 0 for what uses none of ours.
    """

    what: str
    run: Callable[[Bench], list[Row]]
    rounds: int = ROUNDS
    threads: int = 0


def plan_tasks(device: torch.device) -> list[Task]:
    """Everything to be measured on this device, in order.

    A precision whose products are four times slower than fp32's is abandoned but for a few
    small sizes, so that its slowness is on record and the minute is kept for the rest.
    """
    gpu = device.type == "cuda"
    precisions = ("fp32", "tf32", "bf16") if gpu else ("fp32", "bf16")
    hopeless = {precision: is_hopeless(device, precision) for precision in precisions}
    tasks = [
        Task(what="machine", run=probe_machine, rounds=1),
        Task(what="compiler", run=probe_compiler, rounds=1),
        Task(what="start-up and heap", run=partial(probe_startup, level="none"), rounds=1),
        Task(what="heap with recompute", run=partial(probe_startup, level="full"), rounds=1),
        Task(what="disk", run=probe_disk, rounds=1),
        Task(what="all-reduce of two processes", run=probe_all_reduce, rounds=1),
    ]
    for threads in (1,) if gpu else thread_counts(usable_threads()):
        run_copy = partial(probe_copy, threads=threads)
        block = [Task(what=f"memory copy, {_threads(threads)}", run=run_copy)]
        block += _update_tasks(threads, gpu=gpu)
        for precision in precisions:
            block += _precision_tasks(precision, threads, gpu=gpu, hopeless=hopeless[precision])
        tasks += [replace(task, threads=threads) for task in block]
    return tasks


def thread_counts(usable: int) -> tuple[int, ...]:
    """1, all, and up to two counts between: each costs as much time as the first."""
    return tuple(sorted({1, max(1, usable // 4), max(1, usable // 2), usable}))


def is_hopeless(device: torch.device, precision: str) -> bool:
    """Whether a small product in this precision takes over four times as long as in fp32.

    Judged on one thread and the best of several tries, which other processes disturb least.
    """
    if precision == "fp32":
        return False
    bench = Bench(device=device, seconds=0.01)
    best_s = {"fp32": math.inf, precision: math.inf}
    for _ in range(3):
        for name, known_s in best_s.items():
            row = probe_linear(bench, (128, 128, 128), precision=name, threads=1, bias=False)[0]
            best_s[name] = min(known_s, row["training_s"])
    return best_s[precision] > _HOPELESS_RATIO * best_s["fp32"]


def _update_tasks(threads: int, *, gpu: bool) -> list[Task]:
    tasks = [
        Task(
            what=f"{update} of {elements}, {_threads(threads)}",
            run=partial(probe_update, update=update, elements=elements, threads=threads),
        )
        for update in UPDATES
        for elements in (_GPU_TENSORS if gpu else _CPU_TENSORS)
    ]
    tasks += [
        Task(
            what=f"batch of {elements} tokens, {_threads(threads)}",
            run=partial(probe_batch, elements=elements, threads=threads),
        )
        for elements in _BATCH_TOKENS
    ]
    return tasks


def _precision_tasks(precision: str, threads: int, *, gpu: bool, hopeless: bool) -> list[Task]:
    where = f"{precision}, {_threads(threads)}"
    linear = _HOPELESS_LINEAR if hopeless else _GPU_LINEAR if gpu else _CPU_LINEAR
    attention = _HOPELESS_ATTENTION if hopeless else _GPU_ATTENTION if gpu else _CPU_ATTENTION
    matrices = _HOPELESS_MATRICES if hopeless else _GPU_MATRICES if gpu else _CPU_MATRICES
    elements = () if hopeless or precision == "tf32" else _GPU_ELEMENTS if gpu else _CPU_ELEMENTS
    kernels: tuple[Attention, ...] = ("sdpa", "explicit")
    run_linear = partial(probe_linear, precision=precision, threads=threads, bias=False)
    tasks = [
        Task(what=f"linear {shape}, {where}", run=partial(_shaped, run_linear, shape))
        for shape in linear
    ]
    tasks += [
        Task(
            what=f"attention {kernel} {shape}, {where}",
            run=partial(
                _shaped,
                partial(probe_attention, kernel=kernel, precision=precision, threads=threads),
                shape,
            ),
        )
        for kernel in kernels
        for shape in attention
    ]
    run_orthogonalise = partial(probe_orthogonalise, precision=precision, threads=threads)
    tasks += [
        Task(what=f"orthogonalise {shape}, {where}", run=partial(_shaped, run_orthogonalise, shape))
        for shape in matrices
    ]
    tasks += [
        Task(
            what=f"{operation.name} of {size}, {where}",
            run=partial(
                probe_operation,
                operation=operation,
                elements=size,
                precision=precision,
                threads=threads,
            ),
        )
        for operation in OPERATIONS
        for size in elements
    ]
    roof = 128 if hopeless else 4096 if gpu else 1024
    run_roof = partial(probe_roof, size=roof, precision=precision, threads=threads)
    tasks.append(Task(what=f"roof, {where}", run=run_roof))
    return tasks


def _shaped(run: Callable[..., list[Row]], shape: tuple[int, ...], bench: Bench) -> list[Row]:
    return run(bench, shape)


def _threads(number: int) -> str:
    return f"{number} thread{'s' if number > 1 else ''}"
