import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twofold.host.energy import (
    VCPU_POWER_W,
    EnergyCounter,
    EnergyReading,
    find_energy_source,
    modelled_power_w,
)

RANGE_UJ = 262_143_328_850


def zone(powercap: Path, name: str, label: str, energy_uj: int) -> Path:
    folder = powercap / name
    folder.mkdir(parents=True)
    (folder / "name").write_text(f"{label}\n")
    (folder / "energy_uj").write_text(f"{energy_uj}\n")
    (folder / "max_energy_range_uj").write_text(f"{RANGE_UJ}\n")
    return folder


@pytest.fixture
def powercap(tmp_path: Path) -> Path:
    """A server of two packages, as powercap shows it."""
    zone(tmp_path, "intel-rapl:0", "package-0", 1_000_000)
    zone(tmp_path, "intel-rapl:0:0", "core", 500_000)
    zone(tmp_path, "intel-rapl:0:1", "dram", 200_000)
    zone(tmp_path, "intel-rapl:1", "package-1", 2_000_000)
    zone(tmp_path, "intel-rapl:2", "psys", 9_000_000)
    return tmp_path


def counter_of(powercap: Path, *, virtual: bool = False) -> EnergyCounter:
    counter = find_energy_source("cpu", virtual=virtual, powercap=powercap).counter
    assert counter is not None
    return counter


def later(reading: EnergyReading, *counts: int, after_s: float = 10.0) -> EnergyReading:
    return EnergyReading(time_s=reading.time_s + after_s, counts=counts)


def test_packages_and_memory_are_counted_once(powercap: Path) -> None:
    counter = counter_of(powercap)
    reading = counter.read()
    assert reading.counts == (1_000_000, 200_000, 2_000_000)
    assert counter.grade == "measured"
    spent_j = counter.between_j(reading, later(reading, 31_000_000, 1_200_000, 22_000_000))
    assert spent_j == pytest.approx(30 + 1 + 20)


def test_a_counter_that_starts_again_is_followed(powercap: Path) -> None:
    counter = counter_of(powercap)
    before = EnergyReading(time_s=0.0, counts=(RANGE_UJ - 5_000_000, 0, 0))
    after = EnergyReading(time_s=5.0, counts=(7_000_000, 0, 0))
    assert counter.between_j(before, after) == pytest.approx(12.0)


@given(
    start=st.integers(0, RANGE_UJ - 1),
    watts=st.floats(0.0, 450.0),
    window_s=st.floats(1.0, 500.0),
)
def test_energy_is_right_wherever_the_counter_stood(
    start: int, watts: float, window_s: float
) -> None:
    counter = EnergyCounter(
        source="test", scope="test", grade="measured", read_counts=lambda: (0,),
        ranges=(RANGE_UJ,), joule_per_count=1e-6,
    )  # fmt: skip
    spent = int(watts * window_s * 1e6)
    before = EnergyReading(time_s=0.0, counts=(start,))
    after = EnergyReading(time_s=window_s, counts=((start + spent) % RANGE_UJ,))
    assert counter.between_j(before, after) == pytest.approx(spent * 1e-6, abs=1e-9)


@pytest.mark.parametrize("after_s", [0.3, 3600.0], ids=["too short", "may have wrapped twice"])
def test_a_window_that_cannot_be_read_is_unknown(powercap: Path, after_s: float) -> None:
    counter = counter_of(powercap)
    reading = counter.read()
    counts = tuple(count + 1_000_000 for count in reading.counts)
    assert counter.between_j(reading, later(reading, *counts, after_s=after_s)) is None


def test_in_a_virtual_machine_the_counter_is_the_hosts(powercap: Path) -> None:
    assert counter_of(powercap, virtual=True).grade == "host-attributed"


def test_without_a_counter_the_grade_is_unknown_and_says_why(tmp_path: Path) -> None:
    source = find_energy_source("cpu", powercap=tmp_path)
    assert (source.counter, source.grade) == (None, "unknown")
    assert "no processor energy counter" in source.why


def test_a_counter_for_root_only_is_said(powercap: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read_text: Callable[..., str] = Path.read_text

    def refuse(path: Path, *args: Any, **kwargs: Any) -> str:
        if path.name == "energy_uj":
            raise PermissionError(13, "Permission denied")
        return read_text(path, *args, **kwargs)

    monkeypatch.setattr(Path, "read_text", refuse)
    source = find_energy_source("cpu", powercap=powercap)
    assert source.counter is None
    assert "root only" in source.why


class FakeNvml:
    """A driver library with GPUs that have spent 1, 2, 3 ... kJ."""

    def __init__(self, gpus: int, status: int = 0) -> None:
        self.gpus = gpus
        self.status = status

    def nvmlInit_v2(self) -> int:  # noqa: N802
        return 0

    def nvmlDeviceGetCount_v2(self, count: Any) -> int:  # noqa: N802
        count._obj.value = self.gpus
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, index: int, handle: Any) -> int:  # noqa: N802
        handle._obj.value = index + 1
        return 0 if index < self.gpus else 2

    def nvmlDeviceGetHandleByUUID(self, uuid: bytes, handle: Any) -> int:  # noqa: N802
        handle._obj.value = int(uuid.removeprefix(b"GPU-")) + 1
        return 0

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: Any, out: Any) -> int:  # noqa: N802
        out._obj.value = handle.value * 1_000_000
        return self.status


@pytest.mark.parametrize(
    ("visible", "counts"),
    [
        (None, (1_000_000, 2_000_000)),
        ("1", (2_000_000,)),
        ("GPU-0", (1_000_000,)),
        ("0,7,1", (1_000_000,)),
        ("", ()),
    ],
)
def test_the_gpus_that_cuda_sees_are_counted(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, counts: tuple[int, ...]
) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: FakeNvml(2))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    source = find_energy_source("cuda")
    assert (source.counter.read().counts if source.counter else ()) == counts
    assert source.grade == ("measured" if counts else "unknown")
    if source.counter is not None:
        reading = source.counter.read()
        grown = later(reading, *(count + 5_000 for count in counts))
        assert source.counter.between_j(reading, grown) == pytest.approx(5.0 * len(counts))
        assert source.counter.between_j(grown, later(grown, *counts)) is None  # driver reset


def test_a_gpu_without_counter_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: FakeNvml(1, status=3))
    source = find_energy_source("cuda")
    assert source.counter is None
    assert "NVML answers 3" in source.why


def test_without_a_driver_there_is_no_gpu_energy(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: str) -> Any:
        raise OSError

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert "no NVIDIA driver" in find_energy_source("cuda").why


def test_the_modelled_range_holds_every_published_row() -> None:
    """2 cores and 24 GiB at full load: processor 3.4-9.0 W, memory 10.1-20 W."""
    low_w, high_w = modelled_power_w(2, 24 * 2**30, 1.0)
    assert low_w == pytest.approx(2 * 1.693 + 24 * 2**30 * 0.392e-9)
    assert high_w == pytest.approx(2 * 4.482 + 20.0)
    for idle_w, full_w in VCPU_POWER_W.values():
        for utilisation in (0.0, 0.4, 1.0):
            low_w, high_w = modelled_power_w(8, 0, utilisation)
            assert low_w <= 8 * (idle_w + utilisation * (full_w - idle_w)) <= high_w


@given(st.floats(0, 1), st.floats(0, 1))
def test_more_use_is_never_less_power(a: float, b: float) -> None:
    less, more = (modelled_power_w(4, 2**34, u) for u in sorted((a, b)))
    assert less[0] <= more[0]
    assert less[1] <= more[1]
