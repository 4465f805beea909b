"""The experiment file: every fault is told with its place and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from twofold.errors import InputError
from twofold.measure.contestants import placed_contestant
from twofold.measure.experiment import read_experiment
from twofold.measure.progress import Silent
from twofold.workload.text import Corpus

EXAMPLES = Path(__file__).parents[2] / "examples"
COMMANDS = """
name = "mine"
[quality]
margin = 0.05
[arms.a.command]
argv = "true"
patterns = { train_s = 'took ([0-9.]+)' }
[arms.b.command]
argv = "true"
patterns = { train_s = 'took ([0-9.]+)' }
[[comparisons]]
kind = "same maths"
arm = "b"
baseline = "a"
"""


@pytest.mark.parametrize("name", ["stdlib-lm.toml", "external.toml", "uneven.toml"])
def test_the_examples_are_valid(name: str) -> None:
    experiment, written = read_experiment(EXAMPLES / name)
    assert experiment.name == written["name"]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('fleet = "mixed-fleet.toml"', "", "placed on no fleet"),
        ("tokens = 250_880", "", "has no length"),
        ('placement = "planned"', 'placement = "best"', "placement"),
        (
            'placement = "planned"\ncandidates = [{',
            'placement = "planned"\ncandidates = [{ model = "tiny", recipe = "adamw" }, {',
            "not tuned",
        ),
    ],
)
def test_a_fault_of_a_placed_arm_is_named(tmp_path: Path, old: str, new: str, said: str) -> None:
    text = (EXAMPLES / "uneven.toml").read_text()
    assert old in text
    path = tmp_path / "bad.toml"
    path.write_text(text.replace(old, new))
    with pytest.raises(InputError, match=said):
        read_experiment(path)


def test_a_missing_fleet_is_named(tmp_path: Path) -> None:
    path = tmp_path / "uneven.toml"
    path.write_text((EXAMPLES / "uneven.toml").read_text())
    with pytest.raises(InputError, match=r"there is no file .*mixed-fleet") as caught:
        read_experiment(path)
    assert caught.value.at == "experiment, fleet"


def test_a_placed_arm_runs_on_this_machine(tmp_path: Path) -> None:
    path = tmp_path / "uneven.toml"
    path.write_text((EXAMPLES / "uneven.toml").read_text())
    (tmp_path / "mixed-fleet.toml").write_text('[[pool]]\nmachine = "dgx-h100"\n')
    experiment, _ = read_experiment(path)
    name = next(name for name, arm in experiment.arms.items() if arm.placement is not None)
    corpus = Corpus(
        folder="", text_hash="sha256:0", dtype="uint8", vocab=256, num_tokens={},
        num_documents=0, num_duplicates=0,
    )  # fmt: skip
    with pytest.raises(InputError, match="a proof runs on this machine") as caught:
        placed_contestant(name, experiment, corpus=corpus, progress=Silent(), quick=True)
    assert caught.value.at == "experiment, fleet"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('kind = "same maths"', 'kind = "faster"', "comparisons"),
        ('arm = "b"', 'arm = "c"', "there is no arm 'c'"),
        ("margin = 0.05", "margin = -1.0", "quality.margin"),
        ("margin = 0.05", "margn = 0.05", "perhaps 'quality.margin'|perhaps 'margin'"),
        ("[arms.b.command]", "[arms.b]\ntitle = 'x'\n[arms.c.command]", "exactly one|are given"),
        ("([0-9.]+)", "[0-9.]+", "groups"),
        ('name = "mine"', 'name = "mine', "not TOML"),
        ("[quality]", "[budget]\nblocks = 2\n[quality]", "budget.blocks"),
    ],
)
def test_a_fault_is_named(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in COMMANDS
    path = tmp_path / "bad.toml"
    path.write_text(COMMANDS.replace(old, new))
    with pytest.raises(InputError) as caught:
        read_experiment(path)
    import re

    assert re.search(said, str(caught.value))
    assert caught.value.help


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_experiment(tmp_path / "none.toml")
