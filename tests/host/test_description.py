import json
import subprocess
import sys
from pathlib import Path

import pytest

from twofold.host import describe_host, git_commit
from twofold.host.description import (
    parse_cpuinfo,
    parse_nvidia_smi,
    parse_rocm_smi,
    virtualisation,
)

X86 = """\
processor\t: 0
vendor_id\t: GenuineIntel
model name\t: Intel(R) Xeon(R) Platinum 8481C
flags\t\t: fpu fma avx2 avx512f avx512_bf16 amx_bf16 amx_tile hypervisor

processor\t: 1
model name\t: another
"""
ARM = "processor\t: 0\nFeatures\t: fp asimd sve bf16\nCPU implementer\t: 0x41\n"


def write(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_this_machine_is_strict_json_and_has_what_the_proof_needs() -> None:
    described = describe_host()
    again = json.loads(json.dumps(described, allow_nan=False))
    assert again == described
    assert described["cores"]["usable"] > 0
    assert described["memory"]["total_bytes"] > 2**28
    assert described["packages"]["numpy"]
    assert set(described["energy"]) == {"cpu", "cuda"}


def test_describing_imports_no_framework() -> None:
    code = (
        "import sys; from twofold.host import describe_host; describe_host(); "
        "print([m for m in ('torch', 'numpy', 'scipy', 'pydantic') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_x86_is_read() -> None:
    cpu = parse_cpuinfo(X86)
    assert cpu["model"] == "Intel(R) Xeon(R) Platinum 8481C"
    assert cpu["instruction_sets"] == [
        "amx_bf16", "amx_tile", "avx2", "avx512_bf16", "avx512f", "fma",
    ]  # fmt: skip


def test_arm_is_read() -> None:
    cpu = parse_cpuinfo(ARM)
    assert cpu["vendor"] == "0x41"
    assert cpu["instruction_sets"] == ["neon", "neon_bf16", "sve"]


def test_an_empty_machine_is_described_as_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    described = describe_host(tmp_path)
    assert described["memory"] == {
        "total_bytes": None, "available_bytes": None, "limit_bytes": None,
    }  # fmt: skip
    assert described["accelerators"] == []
    assert described["cpu"]["caches_bytes"] == {}


def test_caches_are_read(tmp_path: Path) -> None:
    for index, (level, kind, size) in enumerate(
        [("1", "Data", "48K"), ("1", "Instruction", "32K"), ("3", "Unified", "105M")]
    ):
        for name, text in (("level", level), ("type", kind), ("size", size)):
            write(tmp_path, f"sys/devices/system/cpu/cpu0/cache/index{index}/{name}", f"{text}\n")
    assert describe_host(tmp_path)["cpu"]["caches_bytes"] == {
        "L1d": 48 * 1024, "L1i": 32 * 1024, "L3": 105 * 2**20,
    }  # fmt: skip


def test_machine_and_container_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("KUBERNETES_SERVICE_HOST", "SLURM_JOB_ID"):
        monkeypatch.delenv(name, raising=False)
    assert virtualisation(tmp_path) == {"machine": None, "container": None}
    write(tmp_path, "proc/cpuinfo", X86)
    assert virtualisation(tmp_path)["machine"] == "unnamed hypervisor"
    write(tmp_path, "sys/class/dmi/id/sys_vendor", "Amazon EC2\n")
    write(tmp_path, "proc/self/cgroup", "0::/kubepods/pod1\n")
    write(tmp_path, ".dockerenv", "")
    assert virtualisation(tmp_path) == {"machine": "Amazon EC2", "container": "docker, kubernetes"}


def test_nvidia_smi_is_read() -> None:
    text = "NVIDIA H100 80GB HBM3, 81559, 570.86.15, 700.00\nTesla T4, [N/A], 570.86.15, [N/A]\n"
    first, second = parse_nvidia_smi(text)
    assert first["name"] == "NVIDIA H100 80GB HBM3"
    assert first["memory_bytes"] == 81559 * 2**20
    assert first["power_limit_w"] == 700.0
    assert (second["memory_bytes"], second["power_limit_w"]) == (None, None)
    assert parse_nvidia_smi("No devices were found\n") == []


def test_rocm_smi_is_read() -> None:
    text = json.dumps(
        {
            "card0": {
                "Card Series": "AMD Instinct MI300X",
                "VRAM Total Memory (B)": "206141652992",
            },
            "system": {"Driver version": "6.10"},
        }
    )
    (card,) = parse_rocm_smi(text)
    assert card["name"] == "AMD Instinct MI300X"
    assert card["memory_bytes"] == 206141652992
    assert parse_rocm_smi("ERROR: no driver") == []


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
    return subprocess.run(
        ["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=True
    ).stdout.strip()


def test_a_commit_is_named_and_a_changed_tree_is_dirty(tmp_path: Path) -> None:
    assert git_commit(tmp_path) is None
    git(tmp_path, "init")
    assert git_commit(tmp_path) is None
    write(tmp_path, "file", "one")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "-m", "one")
    git(tmp_path, "tag", "v1")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert git_commit(tmp_path) == commit
    write(tmp_path, "file", "two")
    assert git_commit(tmp_path) == f"{commit}-dirty"


def test_without_git_there_is_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert git_commit(tmp_path) is None
