from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from twofold.catalog import describe, list_entries, why
from twofold.errors import InputError


def test_everything_of_the_vocabulary_is_shown_known_or_not() -> None:
    shown = describe("tpu-v5p")
    assert shown.kind == "accelerator"
    figures = {one.key: one for one in shown.figures}
    assert figures["flop_per_s.bf16"].figure is not None
    assert figures["power.max_w"].figure is None
    assert figures["power.max_w"].origin is None
    assert figures["flop_per_s.bf16"].origin == "twofold/catalog/accelerators/tpu-v5p.toml"


def test_why_names_the_losers() -> None:
    bandwidth = next(one for one in why("b200") if one.key == "memory.bandwidth_bytes_per_s")
    assert bandwidth.figure is not None
    assert bandwidth.figure.value == 7.7e12
    assert [loser.figure.value for loser in bandwidth.losers] == [8e12]
    assert all(one.figure is not None for one in why("b200"))


def test_machines_and_fabrics_can_be_shown() -> None:
    assert describe("azure-nd-h200-v5").settings["accelerator"] == "h200-sxm"
    assert describe("nvlink4").kind == "link"
    assert describe("aws-p5").prices
    with pytest.raises(InputError, match="no machine or accelerator"):
        describe("nonsense-9000")


def test_lists() -> None:
    assert {listing.kind for listing in list_entries()} == {"accelerator", "node", "link"}
    machines = list_entries("node")
    assert [listing.id for listing in machines] == sorted(listing.id for listing in machines)
    h200 = next(listing for listing in machines if listing.id == "azure-nd-h200-v5")
    assert (h200.vendor, h200.summary) == ("Azure", "8 x h200-sxm")


def test_descriptions_are_plain_data() -> None:
    json.dumps(asdict(describe("h100-sxm")))
    json.dumps([asdict(listing) for listing in list_entries()])
