"""Each rule of `lint` finds the error it is there for."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.catalog.overlays import write
from twofold.catalog import lint


def faults_of(workplace: Path, text: str, folder: str = "accelerators") -> dict[str, str]:
    write(workplace / "catalog.d" / folder / "trial.toml", f'id = "trial"\n{text}')
    return {fault.rule: fault.message for fault in lint() if fault.entry == "trial"}


BASE = 'kind = "gpu"\n[figures]\nmemory.usable_bytes = 80e9\n'


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        (BASE + "flop_per_s.bf16 = 1e15\nflop_per_s.fp8 = 3e15\n", "fp8-over-bf16"),
        (BASE + "flop_per_s.fp8 = 1e15\nflop_per_s.mxfp8 = 2e15\n", "mxfp8"),
        ('die = "gh100"\n' + BASE + "flop_per_s.bf16 = 1978e12\n", "sparsity"),
        (BASE + "memory.label_bytes = 64e9\n", "usable-memory"),
        (BASE + "power.idle_w = 700\npower.max_w = 700\n", "idle-power"),
        ('launched = "2022"\n' + BASE, "launched"),
        (
            '[scale_up]\nfabric = "nvlink4"\n[figures]\nscale_up.bandwidth_bytes_per_s = 900e9\n',
            "duplex",
        ),
        ('[scale_up]\nfabric = "nvlink9"\n', "fabric"),
        (
            '[scale_up]\ntopology = "full-mesh"\ndomain = 8\n[figures]\n'
            "scale_up.bandwidth_bytes_per_s = 448e9\nscale_up.pair_bytes_per_s = 448e9\n",
            "full-mesh",
        ),
        (
            '[figures]\nflop_per_s.bf16 = { value = 2e15, basis = "derived", source = "s", '
            "product_of = [2.1e9, 304, 2048] }\n",
            "product",
        ),
        ('node = "dgx-h100"\n' + BASE, "customary"),
    ],
)
def test_errors_of_accelerators(text: str, rule: str, workplace: Path) -> None:
    assert rule in faults_of(workplace, text)


def test_a_measurement_above_the_peak_is_a_warning_and_not_clamped(workplace: Path) -> None:
    text = BASE + "flop_per_s.bf16 = 800e12\nachieved_flop_per_s.bf16 = 853e12\n"
    write(workplace / "catalog.d" / "accelerators" / "trial.toml", f'id = "trial"\n{text}')
    found = [fault for fault in lint() if fault.entry == "trial"]
    assert [(fault.rule, fault.severity) for fault in found] == [("above-peak", "warning")]


def test_errors_of_machines(workplace: Path) -> None:
    assert "accelerator" in faults_of(workplace, 'accelerator = "nothing"\n', "nodes")
    text = 'accelerator = "h100-sxm"\ndevices = 8\n[figures]\npower.rated_w = 5000\n'
    assert "rated-power" in faults_of(workplace, text, "nodes")


def test_two_entries_of_one_name(workplace: Path) -> None:
    write(workplace / "catalog.d" / "accelerators" / "t.toml", 'id = "x"\naliases = ["H100"]\n')
    assert ("names", "h100") in {(fault.rule, fault.entry) for fault in lint()}


def test_errors_of_places(workplace: Path) -> None:
    write(
        workplace / "catalog.d" / "grids" / "t.toml",
        '[place]\n"grams" = { kgco2e_per_kwh = 369, source = "s" }\n'
        '[lies_in]\n"cloud:x" = "NOWHERE"\n',
    )
    assert {"grid", "place"} <= {fault.rule for fault in lint()}
