"""The packaged catalog: every file parses, keeps the rules, and holds what was promised."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from twofold.catalog import find_accelerator, find_node, lint, list_entries
from twofold.catalog.form import read_entry
from twofold.catalog.layers import PACKAGED, entries, read_toml
from twofold.catalog.vocabulary import FIGURE_UNITS, PRECISIONS
from twofold.errors import InputError
from twofold.perf.energy import node_overhead_w

PROMISED = """
p100 v100-sxm2-16g v100-sxm2-32g t4 l4 a10 l40s a100-sxm-40g a100-sxm-80g
h100-sxm h100-pcie h100-nvl h800-sxm h20 h200-sxm gh200 b200-sxm b300-sxm gb200 gb300
rtx-3090 rtx-4090 rtx-5090 rtx-6000-ada mi250x mi300x mi325x mi350x mi355x
epyc-7763 epyc-9654 epyc-9755 xeon-8480+ laptop-cpu
tpu-v3 tpu-v4 tpu-v5e tpu-v5p tpu-v6e tpu-v7x trainium1 trainium2 trainium3 gaudi2 gaudi3
maia-100 maia-200 alveo-v80
"""
MACHINES = """
azure-nd-h200-v5 azure-nd-h100-v5 azure-nd-mi300x-v5 azure-nd-gb200-v6 azure-nd-a100-v4
aws-p4d aws-p5 aws-p5en aws-p6-b200 aws-trn1 aws-trn2 gcp-a3-high gcp-a3-mega gcp-a3-ultra
gcp-a4 gcp-tpu-v5p dgx-a100 dgx-h100 hgx-h200 dgx-b200 gb200-nvl72 gb300-nvl72
"""
FOLDERS = ("accelerators", "nodes", "links", "prices", "grids")
FILES = [
    *sorted(path for folder in FOLDERS for path in (PACKAGED / folder).glob("*.toml")),
    PACKAGED / "reliability.toml",
]


def test_the_catalog_keeps_its_rules() -> None:
    assert [fault for fault in lint() if fault.severity == "error"] == []


@pytest.mark.parametrize("name", PROMISED.split())
def test_accelerators_can_be_built(name: str) -> None:
    accelerator = find_accelerator(name)
    assert accelerator.name == name
    assert accelerator.memory.usable_bytes.value > 1e9
    for precision, rate in accelerator.flop_per_s.items():
        assert precision in PRECISIONS
        assert 1e11 < rate.value < 1e17


@pytest.mark.parametrize("name", MACHINES.split())
def test_machines_can_be_built(name: str) -> None:
    node = find_node(name)
    assert node.name == name
    assert node.num_accelerators >= 1


def test_every_entry_can_be_built() -> None:
    for listing in list_entries("accelerator"):
        find_node(listing.id)
    for listing in list_entries("node"):
        find_node(listing.id)


def test_every_accelerator_and_machine_is_in_a_file_of_its_name() -> None:
    for kind in ("accelerators", "nodes", "links"):
        for path in (PACKAGED / kind).glob("*.toml"):
            assert read_toml(path)["id"] == path.stem


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_files_name_no_place_of_a_workplace(path: Path) -> None:
    text = path.read_text()
    assert not re.search(r"/work/|/tmp/|/home/", text)
    assert "schema = 1" in text


def test_every_shipped_figure_says_its_unit() -> None:
    for kind in ("accelerator", "node", "link"):
        for entry in entries(kind).values():
            for key, candidates in entry.figures.items():
                assert all(one.figure.unit == FIGURE_UNITS[kind][key] for one in candidates)
                assert all(one.figure.source and one.figure.date for one in candidates)


def test_known_values_in_si_units() -> None:
    h100 = find_accelerator("h100-sxm")
    assert h100.flop_per_s["bf16"].value == 989e12
    assert h100.memory.bandwidth_bytes_per_s is not None
    assert h100.memory.bandwidth_bytes_per_s.value == 3.35e12
    assert h100.memory.usable_bytes.value == 81559 * 2**20
    assert h100.launched == "2022-10"
    assert h100.die == "gh100" == find_accelerator("h200").die


def test_what_a_chip_lacks_is_not_a_key() -> None:
    assert "fp8" not in find_accelerator("a100").flop_per_s
    assert "bf16" not in find_accelerator("v100").flop_per_s
    assert "bf16" not in find_accelerator("maia-200").flop_per_s
    assert find_accelerator("alveo-v80").flop_per_s == {}


def test_microscaled_formats_run_where_the_silicon_has_them() -> None:
    for name in ("b200", "gb200", "b300", "gb300", "mi350x", "mi355x"):
        rates = find_accelerator(name).flop_per_s
        assert rates["mxfp8"].value == rates["fp8"].value
    assert "mxfp8" not in find_accelerator("h100-sxm").flop_per_s
    assert "nvfp4" in find_accelerator("b200").flop_per_s
    assert "nvfp4" not in find_accelerator("mi355x").flop_per_s


def test_recalled_figures_are_marked_assumed() -> None:
    for entry in entries("accelerator").values():
        for key, candidates in entry.figures.items():
            for one in candidates:
                if "not re-read" in one.figure.source or "estimate" in one.figure.source:
                    assert one.figure.basis == "assumed", f"{entry.id} {key}"


def test_a_bad_file_names_itself() -> None:
    with pytest.raises(InputError) as caught:
        read_entry({"id": "x", "figures": {"flop_per_s": {"bf61": 1.0}}}, "accelerator",
                   origin="x.toml", layer=1)  # fmt: skip
    assert "x.toml" in str(caught.value)
    assert "flop_per_s.bf16" in str(caught.value)


def test_what_machines_draw_beside_their_devices_is_as_drawn_everywhere() -> None:
    """Not as rated: the share of a DGX H100, the one that was measured, for all that have a rating;
    and a machine that another stands for has that one's figure."""
    rated = {name: one for name, one in entries("node").items() if one.figure("power.rated_w")}
    assert {"dgx-a100", "dgx-h100", "dgx-b200", "dgx-b300", "gb200-nvl72"} <= set(rated)
    for name, entry in rated.items():
        node, limit = find_node(name), entry.figure("power.rated_w")
        assert node.power_overhead_w is not None
        assert node.accelerator.power_max_w is not None
        assert limit is not None
        drawn = node_overhead_w(
            limit.value, node.accelerator.power_max_w.value, node.num_accelerators
        )
        assert node.power_overhead_w.value == pytest.approx(float(drawn), rel=0.01), name
    for name, entry in entries("node").items():
        overhead = entry.figure("power.overhead_w")
        other = re.search(r"\(that of ([a-z0-9-]+)\)$", overhead.source) if overhead else None
        if overhead and other:
            first = entries("node")[other[1]].figure("power.overhead_w")
            assert first is not None
            assert overhead.value == first.value, name
