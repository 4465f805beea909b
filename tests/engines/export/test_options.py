"""Every option that an export writes is one that the engine has, with a value that it takes.

The lists were read from the engines' own sources (`options/record.py`), with their versions.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tests.engines.export.cases import accepted_cases
from tests.engines.test_serving import document as serving_document
from twofold.engines.export import accelerate, deepspeed, maxtext
from twofold.engines.export.deepspeed import read_commented
from twofold.engines.export.form import Case
from twofold.engines.export.registry import ENGINES
from twofold.engines.export.shell import LAUNCH, read_arguments
from twofold.engines.export.torchtitan import read_module
from twofold.engines.export.vllm import VLLM_VERSION, serving_files
from twofold.engines.export.yaml import read_yaml

HERE = Path(__file__).parent / "options"


def recorded(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((HERE / f"{name}.json").read_text())
    return content


def written(name: str, case: Case) -> dict[str, Any]:
    """The options of an export as its engine names them."""
    files = ENGINES[name].write(case)
    if name == "megatron":
        return {k: v for k, v in read_arguments(files[LAUNCH]).items() if k.startswith("--")}
    if name == "deepspeed":
        config = read_commented(files[deepspeed.CONFIG], at="")
        zero = {f"zero_optimization.{k}": v for k, v in config["zero_optimization"].items()}
        return config | zero
    if name == "accelerate":
        return read_yaml(files[accelerate.CONFIG], at="")
    if name == "maxtext":
        options = read_yaml(files[maxtext.CONFIG], at="")
        del options["base_config"]  # the loader's own word, of no list
        return options
    wanted = ("TrainingConfig", "ParallelismConfig", "CompileConfig", "DebugConfig")
    return {
        key: value
        for key, value in read_module(files["planned.py"]).items()
        if key.split(".")[0] in (*wanted, "LRSchedulersContainer", "optimizer") and "." in key
    }


@pytest.mark.parametrize("name", ENGINES)
@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
)
@given(data=st.data())
def test_every_option_is_the_engines_own(name: str, data: st.DataObject) -> None:
    one = data.draw(accepted_cases(name))
    assume(ENGINES[name].refusal(one) is None)
    known = recorded(name)["options"]
    for option, value in written(name, one).items():
        assert option in known, f"{name} has no {option}"
        choices = known[option]
        if choices is True:
            assert value is True, f"{option} is a flag"
        if isinstance(choices, list) and not isinstance(value, dict):
            assert value in choices, f"{option} takes {choices}, not {value}"


def test_vllm_has_every_argument_of_the_command() -> None:
    known = recorded("vllm")["options"]
    document = serving_document(
        tensor_degree=4, pipeline_degree=2, replicas=2, kv_precision="fp8", precision="fp8",
        num_blocks=100, prefix_caching=False,
    )  # fmt: skip
    arguments = read_arguments(serving_files(document)[LAUNCH])
    options = [word for word in arguments if word.startswith("--")]
    assert len(options) > 10
    for option in options:
        assert option.replace("--no-", "--") in known, f"vLLM has no {option}"


@pytest.mark.parametrize("name", [*ENGINES, "vllm"])
def test_the_lists_are_of_the_versions_that_engines_state(name: str) -> None:
    stated = VLLM_VERSION if name == "vllm" else ENGINES[name].version.split()[0]
    assert recorded(name)["version"].startswith(stated)


def test_every_line_of_a_plan_says_where_it_comes_from() -> None:
    from tests.engines.export.cases import case
    from twofold.plan import Plan

    one = case(Plan(micro_batch=2, data_degree=4, zero_stage=3, precision="bf16"))
    files = ENGINES["accelerate"].write(one)
    block = re.search(r"arguments=\(\n(.*?)^\)", files[LAUNCH], re.MULTILINE | re.DOTALL)
    assert block is not None
    assert all("  # " in line for line in block[1].splitlines())
    assert 'mixed_precision: "bf16"  # plan, precision' in files[accelerate.CONFIG]


def test_flavours_of_torchtitan_exist() -> None:
    from twofold.engines.export.torchtitan import _FLAVOURS

    flavours = recorded("torchtitan")["options"]["flavours"]
    assert all(flavour in flavours[module] for module, flavour in _FLAVOURS.values())
