"""Overlays: precedence per figure, and bad files."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.catalog.overlays import write, write_h100
from twofold.catalog import find_accelerator, find_node, list_entries, why
from twofold.errors import InputError


def test_a_measurement_beats_the_datasheet_for_that_figure_alone(workplace: Path) -> None:
    before = find_accelerator("h100-sxm")
    write_h100(workplace / "catalog.d")
    after = find_accelerator("h100-sxm")
    assert after.flop_per_s["bf16"].value == 8e14
    assert after.flop_per_s["fp8"] == before.flop_per_s["fp8"]
    assert after.memory == before.memory


def test_an_assumption_does_not_beat_the_datasheet(workplace: Path) -> None:
    write_h100(workplace / "catalog.d", basis="assumed")
    assert find_accelerator("h100-sxm").flop_per_s["bf16"].value == 989e12


def test_at_equal_basis_the_file_nearest_to_the_user_wins(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_h100(workplace / "config" / "twofold" / "catalog.d", value="1e14")
    write_h100(workplace / "catalog.d", value="2e14")
    assert find_accelerator("h100").flop_per_s["bf16"].value == 2e14
    write_h100(workplace / "named", value="3e14")
    monkeypatch.setenv("TWOFOLD_CATALOG", str(workplace / "named"))
    assert find_accelerator("h100").flop_per_s["bf16"].value == 3e14
    key = next(one for one in why("h100-sxm") if one.key == "flop_per_s.bf16")
    assert key.figure is not None
    assert key.figure.value == 3e14
    assert [loser.figure.value for loser in key.losers] == [2e14, 1e14, 989e12]


def test_a_bare_number_is_the_users_word(workplace: Path) -> None:
    write(
        workplace / "catalog.d" / "mine.toml",
        'entry = "accelerator"\nid = "h100-sxm"\n[figures]\npower.max_w = 350\n',
    )
    power = find_accelerator("h100-sxm").power_max_w
    assert power is not None
    assert (power.value, power.basis) == (350.0, "user")
    assert "mine.toml" in power.source


def test_new_hardware_is_one_file(workplace: Path) -> None:
    write(
        workplace / "catalog.d" / "accelerators" / "my-npu.toml",
        'id = "my-npu"\nkind = "npu"\naliases = ["The NPU"]\nnode_devices = 2\n'
        '[scale_up]\nfabric = "pcie"\n'
        "[figures]\nflop_per_s.bf16 = 1e14\nmemory.usable_bytes = 16e9\n"
        "scale_up.bandwidth_bytes_per_s = 32e9\n",
    )
    assert find_accelerator("the npu").flop_per_s["bf16"].value == 1e14
    assert find_node("my-npu").num_accelerators == 2
    assert "my-npu" in {listing.id for listing in list_entries("accelerator")}


def test_a_changed_file_is_read_again(workplace: Path) -> None:
    write_h100(workplace / "catalog.d", value="1e14")
    assert find_accelerator("h100").flop_per_s["bf16"].value == 1e14
    write_h100(workplace / "catalog.d", value="2.25e14")
    assert find_accelerator("h100").flop_per_s["bf16"].value == 2.25e14


FIGURE = '[figures]\nflop_per_s.bf16 = {{ value = {}, basis = "user", source = "s" }}\n'


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("id = ", "not TOML"),
        ("kind = 'gpu'\n", "no `id`"),
        (FIGURE.format("nan").replace("[fig", 'id = "h100-sxm"\n[fig'), "finite"),
        (FIGURE.format("inf").replace("[fig", 'id = "h100-sxm"\n[fig'), "finite"),
        (FIGURE.format("-1.0").replace("[fig", 'id = "h100-sxm"\n[fig'), "non-negative"),
        (FIGURE.format("true").replace("[fig", 'id = "h100-sxm"\n[fig'), "not a number"),
        (FIGURE.format("'9'").replace("[fig", 'id = "h100-sxm"\n[fig'), "not a number"),
        ('id = "h100-sxm"\n[figures]\nmemory.size = 3\n', "no key"),
        ('id = "h100-sxm"\ncolour = "red"\n', "no key"),
        ('id = "h100-sxm"\nkind = "toaster"\n', "toaster"),
        ('id = "h100-sxm"\nnode_devices = 0\n', "positive"),
        ('id = "h100-sxm"\nnode_devices = "8"\n', "type int"),
        ('id = "h100-sxm"\nschema = 2\n', "schema"),
        ('id = "h100-sxm"\naliases = "x"\n', "list"),
        ('id = "h100-sxm"\nfigures = 3\n', "table"),
        ('id = "h100-sxm"\n[figures]\npower.max_w = { value = 1.0, basis = "user" }\n', "source"),
        (
            'id = "h100-sxm"\n[figures]\n'
            'power.max_w = { value = 1.0, basis = "rumour", source = "s" }\n',
            "basis",
        ),
        (
            'id = "h100-sxm"\n[figures]\n'
            'power.max_w = { value = 1.0, unit = "kW", basis = "user", source = "s" }\n',
            "SI base units",
        ),
    ],
)
def test_bad_files_are_refused_with_their_name(text: str, says: str, workplace: Path) -> None:
    write(workplace / "catalog.d" / "accelerators" / "bad.toml", text)
    with pytest.raises(InputError) as caught:
        find_accelerator("h100-sxm")
    assert says in str(caught.value)
    assert "bad.toml" in str(caught.value)
    assert caught.value.help


def test_an_overlay_of_a_misspelt_id_is_refused_when_used(workplace: Path) -> None:
    write(
        workplace / "catalog.d" / "accelerators" / "bad.toml",
        'id = "h100-xsm"\n[figures]\npower.max_w = 300\n',
    )
    with pytest.raises(InputError, match="no kind"):
        find_accelerator("h100-xsm")


def test_a_missing_folder_and_an_unsorted_file_are_refused(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TWOFOLD_CATALOG", str(workplace / "nowhere"))
    with pytest.raises(InputError, match="no folder"):
        find_accelerator("h100-sxm")
    monkeypatch.delenv("TWOFOLD_CATALOG")
    write(workplace / "catalog.d" / "stray.toml", 'id = "h100-sxm"\n')
    with pytest.raises(InputError, match="what the file describes"):
        find_accelerator("h100-sxm")
