"""The machine around the device: memory, disk, processes, start-up, compiler."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from twofold.runtime.probe.timing import Bench, Row, conditions, time_call, timing_fields

_COPY_BYTES = 2**26
_FILE_BYTES = 2**26

_BASE_PROGRAM = """
import time
from pathlib import Path
start = time.perf_counter()
import torch
import twofold.runtime.train.loop
imported_s = time.perf_counter() - start
def resident():
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    lines = status.read_text().splitlines()
    return 1024 * float(next(l for l in lines if l.startswith("VmRSS")).split()[1])
bare = resident()
layer = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.GELU(), torch.nn.LayerNorm(64))
optimizer = torch.optim.AdamW(layer.parameters())
start = time.perf_counter()
with torch.autocast("cpu", torch.bfloat16, enabled=False):
    layer(torch.randn(64, 64)).sum().backward()
torch.nn.utils.clip_grad_norm_(layer.parameters(), 1.0)
optimizer.step()
print(imported_s, time.perf_counter() - start, bare, resident())
"""


def probe_machine(bench: Bench) -> list[Row]:
    """What the machine and the framework are."""
    row: Row = {
        "kind": "machine",
        "device": bench.device.type,
        "framework": f"torch {torch.__version__}",
        "python": platform.python_version(),
        "system": platform.system(),
        "architecture": platform.machine(),
        **_processor(),
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
            "time_s": timing.low_s,
            **timing_fields(timing),
        }
    ]


def probe_startup(bench: Bench) -> list[Row]:
    """A fresh process that imports the training runtime and takes one tiny step."""
    start_s = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", _BASE_PROGRAM], capture_output=True, text=True, check=True
    )
    total_s = time.perf_counter() - start_s
    imported, first_step, bare, resident = done.stdout.split()
    row: Row = {
        "kind": "startup",
        "process_s": total_s,
        "import_s": float(imported),
        "first_step_s": float(first_step),
        "base_memory_bytes": None if resident == "None" else float(resident),
        "bare_memory_bytes": None if bare == "None" else float(bare),
    }
    return [row]


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
    name = next((c for c in (os.environ.get("CXX"), "g++", "clang++") if c and shutil.which(c)), None)
    return [{"kind": "compiler", "available": name is not None, "name": name}]


def usable_threads() -> int:
    """Cores this process may use (an affinity mask or container may hide some)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _processor() -> Row:
    """Name, and on Linux vendor, family and model number as the kernel reports them."""
    row: Row = {"processor": platform.processor() or "unknown"}
    wanted = {
        "model name": "processor",
        "vendor_id": "vendor",
        "cpu family": "family",
        "model": "model",
    }
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().split("\n\n", 1)[0].splitlines():
            name, _, value = (part.strip() for part in line.partition(":"))
            if name in wanted:
                row[wanted[name]] = int(value) if value.isdigit() else value
    return row
