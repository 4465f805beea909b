from __future__ import annotations

import pytest

from twofold.catalog import find_accelerator, find_node
from twofold.errors import InputError


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("H100", "h100-sxm"),
        ("H100 SXM", "h100-sxm"),
        ("H100-SXM-80GB", "h100-sxm"),
        ("A100", "a100-sxm-80g"),
        ("a100_sxm_40gb", "a100-sxm-40g"),
        ("TPU v5p", "tpu-v5p"),
        ("TPU7x (Ironwood)", "tpu-v7x"),
        ("Trainium1 (trn1/trn1n)", "trainium1"),
        ("mi300x", "mi300x"),
        ("RTX 4090", "rtx-4090"),
        ("NVIDIA GeForce RTX 4090", "rtx-4090"),
        ("NVIDIA H100 SXM 80GB", "h100-sxm"),
        ("AMD Instinct MI300X", "mi300x"),
        ("Google TPU v5e", "tpu-v5e"),
        ("AWS Trainium1", "trainium1"),
        ("fpga-overlay", "alveo-v80"),
    ],
)
def test_aliases(typed: str, meant: str) -> None:
    assert find_accelerator(typed).name == meant


@pytest.mark.parametrize("name", ["mai-1", "MAI-1", "MAI-1-preview", "mai 1"])
def test_mai_1_is_a_model(name: str) -> None:
    for find in (find_accelerator, find_node):
        with pytest.raises(InputError) as caught:
            find(name)
        assert "not a chip" in str(caught.value)
        assert "maia-200" in str(caught.value)


def test_an_unknown_name_tells_the_nearest_and_where_to_add_it() -> None:
    with pytest.raises(InputError) as caught:
        find_accelerator("h10-sxm")
    assert "h100-sxm" in str(caught.value)
    assert "catalog.d/accelerators/NAME.toml" in str(caught.value)
    with pytest.raises(InputError) as caught:
        find_node("azure-nd-h100-v6")
    assert "azure-nd-h100-v5" in str(caught.value)


@pytest.mark.parametrize("name", ["", "..", "../h100-sxm", "a/b", "x" * 500, "\0", "ünïcode"])
def test_strange_names_are_refused(name: str) -> None:
    with pytest.raises(InputError):
        find_node(name)


def test_an_accelerator_gives_its_customary_machine() -> None:
    assert find_node("h100-sxm").name == "dgx-h100"
    assert find_node("gb200").num_accelerators == 4
    assert find_node("rtx-4090").num_accelerators == 8
    assert find_node("laptop-cpu").num_accelerators == 1
    assert find_node("maia-200").name == "maia-200-x4"
