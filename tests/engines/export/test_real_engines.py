"""Exports in the engines themselves: a small model trains, and their own parsers take the files.

TWOFOLD_ENGINES names the Python of an environment with accelerate, deepspeed and transformers;
without it one is made (`pip install`, minutes).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.engines.export.cases import LLAMA
from tests.fleets import plain_fleet
from twofold.document import make_document
from twofold.engines.export import export_plan, find_engine
from twofold.plan import Plan
from twofold.workload import Recipe, Train
from twofold.workload.text import cache_folder

pytestmark = pytest.mark.verify

PACKAGES = ("torch==2.13.0", "accelerate==1.15.0", "deepspeed==0.19.8", "transformers==5.23.0")
PARSER = (
    "from accelerate.commands.config.config_args import load_config_from_file as load; "
    "print(load('accelerate.yaml').num_processes)"
)
"""DeepSpeed's is a part of training: `deepspeed.initialize` reads the file."""


@pytest.fixture(scope="session")
def python() -> Path:
    named = os.environ.get("TWOFOLD_ENGINES")
    if named:
        return Path(named)
    folder = cache_folder() / "engines"
    if not (folder / "installed").is_file():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([folder / "bin/pip", "install", "-q", *PACKAGES], check=True)
        (folder / "installed").touch()
    return folder / "bin/python"


def exported(folder: Path, engine: str, plan: Plan) -> Path:
    recipe = Recipe(learning_rate=1e-3, global_batch=8)
    document = make_document(
        model=LLAMA,
        workload=Train(tokens=6 * 8 * 32, seq_len=32, recipe=recipe),
        fleet=plain_fleet(),
        plan=plan,
        estimate=None,
        seed=0,
        twofold_version="test",
    )
    export_plan(document, find_engine(engine, at="--to"), folder)
    return folder


def losses(folder: Path, python: Path) -> list[float]:
    environment = os.environ | {"PATH": f"{python.parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", str(folder / "launch.sh")], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    rows = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(row)["loss"] for row in rows]


def test_engines_learn_the_same(tmp_path: Path, python: Path) -> None:
    """The same plan's mathematics: DDP, and ZeRO 0 to 2 in fp32, agree in every step's loss."""
    plan = Plan(micro_batch=2, data_degree=2)
    reference = losses(exported(tmp_path / "a", "accelerate", plan), python)
    assert len(reference) == 6
    one = Plan(micro_batch=4, data_degree=1)
    assert losses(exported(tmp_path / "one", "accelerate", one), python) == pytest.approx(
        reference, abs=1e-4
    )
    for stage in (0, 2):
        sharded = Plan(micro_batch=2, data_degree=2, zero_stage=stage)  # type: ignore[arg-type]
        folder = exported(tmp_path / f"z{stage}", "deepspeed", sharded)
        assert losses(folder, python) == pytest.approx(reference, abs=1e-4)


def test_accelerates_own_parser_takes_the_file(tmp_path: Path, python: Path) -> None:
    folder = exported(tmp_path, "accelerate", Plan(micro_batch=4, data_degree=2))
    done = subprocess.run(
        [python, "-c", PARSER], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split()[-1] == "2"
