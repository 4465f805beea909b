"""What this machine is, as one JSON document: for `doctor`, for evidence, for a bug report.

Everything is looked up without importing a framework; what the system does not tell is None.
"""

from __future__ import annotations

import csv
import json
import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

from twofold.host.energy import find_energy_source
from twofold.host.limits import (
    ROOT,
    available_memory_bytes,
    cpu_quota,
    meminfo_bytes,
    memory_limit_bytes,
    usable_cores,
    visible_cores,
)

PACKAGES = ("twofold", "torch", "numpy", "scipy", "pydantic", "triton", "jax", "tensorflow")
VARIABLES = (
    "OMP_NUM_THREADS", "OMP_PROC_BIND", "OMP_PLACES", "KMP_AFFINITY", "KMP_BLOCKTIME",
    "GOMP_CPU_AFFINITY", "MKL_NUM_THREADS", "MKL_ENABLE_INSTRUCTIONS", "OPENBLAS_NUM_THREADS",
    "ONEDNN_MAX_CPU_ISA", "ONEDNN_DEFAULT_FPMATH_MODE", "TORCH_NUM_THREADS", "LD_PRELOAD",
    "MALLOC_ARENA_MAX", "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER",
    "PYTORCH_CUDA_ALLOC_CONF", "NVIDIA_TF32_OVERRIDE", "HIP_VISIBLE_DEVICES",
)  # fmt: skip
"""Environment variables that change speed without any code saying so."""
_INSTRUCTION_SETS = {
    "avx2": "avx2", "fma": "fma", "avx512f": "avx512f", "avx512_bf16": "avx512_bf16",
    "avx512_vnni": "avx512_vnni", "avx512_fp16": "avx512_fp16", "amx_tile": "amx_tile",
    "amx_bf16": "amx_bf16", "amx_int8": "amx_int8", "asimd": "neon", "bf16": "neon_bf16",
    "sve": "sve", "sve2": "sve2", "sme": "sme",
}  # fmt: skip
"""Flag in /proc/cpuinfo -> name. On x86 `bf16` does not occur alone."""
_PATIENCE_S = 10.0


def describe_host(root: Path = ROOT) -> dict[str, Any]:
    """The machine as JSON. Takes under a second without a GPU; starts `nvidia-smi` or `rocm-smi`
    where they are on PATH."""
    cpu_info = _read(root / "proc/cpuinfo")
    virtual = virtualisation(root)
    return {
        "os": f"{platform.system()} {platform.release()}",
        "distribution": _distribution(root),
        "architecture": platform.machine(),
        "cpu": parse_cpuinfo(cpu_info) | {"caches_bytes": _caches(root)},
        "cores": {
            "total": os.cpu_count(),
            "visible": len(visible_cores()),
            "quota": cpu_quota(root),
            "usable": usable_cores(root),
        },
        "memory": {
            "total_bytes": meminfo_bytes("MemTotal", root) or _sysctl_int("hw.memsize"),
            "available_bytes": available_memory_bytes(root),
            "limit_bytes": memory_limit_bytes(root),
        },
        "load": _load(),
        "accelerators": nvidia_gpus() + amd_gpus(),
        "energy": describe_energy(virtual=virtual["machine"] is not None),
        "virtualisation": virtual,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
        "variables": {name: os.environ[name] for name in VARIABLES if name in os.environ},
    }


def describe_energy(*, virtual: bool) -> dict[str, dict[str, str]]:
    """Grade and source of the energy counters of processor and GPU."""
    found = {
        "cpu": find_energy_source("cpu", virtual=virtual),
        "cuda": find_energy_source("cuda"),
    }
    return {name: {"grade": source.grade, "why": source.why} for name, source in found.items()}


def parse_cpuinfo(text: str) -> dict[str, Any]:
    """Model and instruction sets from /proc/cpuinfo; from sysctl where there is none (macOS)."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip().lower(), value.strip())
    flags = set((fields.get("flags") or fields.get("features") or "").split())
    model = fields.get("model name") or fields.get("cpu model")
    return {
        "model": model or _sysctl("machdep.cpu.brand_string") or platform.processor() or None,
        "vendor": fields.get("vendor_id") or fields.get("cpu implementer"),
        "instruction_sets": sorted(_INSTRUCTION_SETS[f] for f in flags & set(_INSTRUCTION_SETS)),
    }


def virtualisation(root: Path = ROOT) -> dict[str, str | None]:
    """The virtual machine and the container this runs in, as far as they show themselves."""
    product = " ".join(
        word
        for name in ("sys_vendor", "product_name")
        if (word := _read(root / "sys/class/dmi/id" / name))
    )
    flags = _read(root / "proc/cpuinfo").partition("flags")[2].partition("\n")[0].split()
    machine = (product or "unnamed hypervisor") if "hypervisor" in flags else None
    groups = _read(root / "proc/self/cgroup")
    marks = {
        "docker": (root / ".dockerenv").exists() or "docker" in groups,
        "podman": (root / "run/.containerenv").exists(),
        "kubernetes": "KUBERNETES_SERVICE_HOST" in os.environ or "kubepods" in groups,
        "slurm": "SLURM_JOB_ID" in os.environ,
    }
    inside = [name for name, seen in marks.items() if seen]
    return {"machine": machine, "container": ", ".join(inside) or None}


def nvidia_gpus() -> list[dict[str, Any]]:
    text = _output(
        "nvidia-smi", "--query-gpu=name,memory.total,driver_version,power.limit",
        "--format=csv,noheader,nounits",
    )  # fmt: skip
    return parse_nvidia_smi(text or "")


def parse_nvidia_smi(text: str) -> list[dict[str, Any]]:
    """Rows of name, MiB, driver, W; a field the card does not give is `[N/A]`."""
    return [
        {
            "vendor": "NVIDIA",
            "name": row[0].strip(),
            "memory_bytes": None if (mib := _number(row[1])) is None else int(mib * 2**20),
            "driver": row[2].strip(),
            "power_limit_w": _number(row[3]),
        }
        for row in csv.reader(text.splitlines())
        if len(row) == 4
    ]


def amd_gpus() -> list[dict[str, Any]]:
    text = _output("rocm-smi", "--showproductname", "--showmeminfo", "vram", "--json")
    return parse_rocm_smi(text or "")


def parse_rocm_smi(text: str) -> list[dict[str, Any]]:
    """Entries `card0`, `card1` ... of rocm-smi's JSON, whose field names vary between releases."""
    try:
        cards = json.loads(text)
    except ValueError:
        return []
    found = []
    for key, card in sorted(cards.items()):
        if not key.startswith("card"):
            continue
        by_name = {name.lower(): value for name, value in card.items()}
        memory = _number(by_name.get("vram total memory (b)", ""))
        found.append(
            {
                "vendor": "AMD",
                "name": by_name.get("card series") or by_name.get("card model"),
                "memory_bytes": None if memory is None else int(memory),
                "driver": None,
                "power_limit_w": None,
            }
        )
    return found


def git_commit(path: Path) -> str | None:
    """The commit that is checked out at `path`, with `-dirty` where tracked files differ from it;
    None outside a repository."""
    arguments = ("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    text = _output("git", "-C", str(path), *arguments)
    return text.strip() or None if text is not None else None


def _output(program: str, *arguments: str) -> str | None:
    """What a program prints; None if it is not there, fails, or does not answer in time."""
    if shutil.which(program) is None:
        return None
    try:
        ran = subprocess.run(
            [program, *arguments],
            capture_output=True, text=True, timeout=_PATIENCE_S, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return ran.stdout


def _caches(root: Path) -> dict[str, int]:
    """Bytes of each cache that the first core sees, such as {"L1d": 32768, "L3": 33554432}."""
    found = {}
    for index in sorted((root / "sys/devices/system/cpu/cpu0/cache").glob("index*")):
        level, kind, size = (_read(index / name) for name in ("level", "type", "size"))
        suffix = {"Data": "d", "Instruction": "i"}.get(kind, "")
        scale = {"K": 2**10, "M": 2**20}.get(size[-1:])
        if level and scale and size[:-1].isdigit():
            found[f"L{level}{suffix}"] = int(size[:-1]) * scale
    return found


def _distribution(root: Path) -> str | None:
    for line in _read(root / "etc/os-release").splitlines():
        if line.startswith("PRETTY_NAME="):
            return line.partition("=")[2].strip('"')
    return platform.mac_ver()[0] or None


def _load() -> list[float] | None:
    try:
        return list(os.getloadavg())
    except (OSError, AttributeError):
        return None


def _version(name: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _sysctl(name: str) -> str | None:
    if platform.system() != "Darwin":
        return None
    return (_output("sysctl", "-n", name) or "").strip() or None


def _sysctl_int(name: str) -> int | None:
    text = _sysctl(name)
    return int(text) if text is not None and text.isdigit() else None


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
