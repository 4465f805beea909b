"""The machine around the device: memory, disk, processes, start-up, compiler."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from twofold.host import memory_limit_bytes, usable_cores
from twofold.plan import Recompute
from twofold.runtime.probe.timing import Bench, Row, conditions, time_call, timing_fields

_COPY_BYTES = 2**26
_FILE_BYTES = 2**26


def probe_machine(bench: Bench) -> list[Row]:
    """What the machine and the framework are."""
    row: Row = {
        "kind": "machine",
        "device": bench.device.type,
        "framework": f"torch {torch.__version__}",
        "python": platform.python_version(),
        "system": platform.system(),
        "architecture": platform.machine(),
        "processor": describe_processor(),
        "threads": usable_threads(),
        "memory_bytes": _memory_bytes(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }
    if bench.device.type == "cuda":
        properties = torch.cuda.get_device_properties(bench.device)
        row |= {
            "processor": properties.name,
            "threads": 1,
            "memory_bytes": torch.cuda.mem_get_info(bench.device)[0],
        }
    return [row]


def probe_copy(bench: Bench, *, threads: int) -> list[Row]:
    """Copying a buffer far larger than the caches: bytes read plus bytes written a second."""
    source = torch.ones(_COPY_BYTES // 4, device=bench.device)
    target = torch.empty_like(source)
    with conditions("fp32", threads):
        timing = time_call(bench, lambda: target.copy_(source))
    return [
        {
            "kind": "copy",
            "threads": threads,
            "bytes": 2 * _COPY_BYTES,
            "time_s": timing.median_s,
            **timing_fields(timing),
        }
    ]


def probe_startup(bench: Bench, *, level: Recompute) -> list[Row]:
    """A fresh process that becomes a training process on a CPU: see `heap`."""
    command = [sys.executable, "-m", "twofold.runtime.probe.heap", str(time.time()), level]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def probe_disk(bench: Bench) -> list[Row]:
    """Reading a file that was just written and, where the system lets us, dropped from cache."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "probe"
        path.write_bytes(os.urandom(2**20) * (_FILE_BYTES // 2**20))
        descriptor = os.open(path, os.O_RDONLY)
        cold = hasattr(os, "posix_fadvise")
        try:
            if cold:
                os.fsync(descriptor)
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            start_s = time.perf_counter()
            while os.read(descriptor, 2**20):
                pass
            time_s = time.perf_counter() - start_s
        finally:
            os.close(descriptor)
    return [{"kind": "disk", "bytes": _FILE_BYTES, "time_s": time_s, "cold": cold}]


def probe_compiler(bench: Bench) -> list[Row]:
    """Whether `torch.compile` has the compiler it needs on this device."""
    if bench.device.type == "cuda":
        try:
            import triton
        except ImportError:
            return [{"kind": "compiler", "available": False, "name": None}]
        return [{"kind": "compiler", "available": True, "name": f"triton {triton.__version__}"}]
    candidates = (os.environ.get("CXX"), "g++", "clang++")
    name = next((c for c in candidates if c and shutil.which(c)), None)
    return [{"kind": "compiler", "available": name is not None, "name": name}]


def usable_threads() -> int:
    """Whole cores that this process may use, by affinity and by the control group's quota."""
    return max(1, int(usable_cores()))


def _memory_bytes() -> int:
    """Memory of the machine, or what its control group allows."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = memory_limit_bytes()
    return total if limit is None else min(total, limit)


def describe_processor() -> str:
    """The kernel's name for the processor, or what Python knows of it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
