"""`twofold export`, `import` and `engines` from the command line, and what they refuse."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.engines.export.cases import GPT2, LLAMA, workload
from tests.engines.test_serving import document as serving_document
from twofold.catalog import read_fleet
from twofold.cli.entry import _main
from twofold.document import make_document, read_plan, write_plan
from twofold.engines.export import import_plan
from twofold.engines.export.huggingface import huggingface_config
from twofold.errors import InputError
from twofold.model import Model
from twofold.plan import Plan
from twofold.serving_document import write_serving_plan
from twofold.sources.huggingface import model_from_config
from twofold.sources.models import find_model


def plan_file(folder: Path, model: Model = LLAMA, **levers: Any) -> Path:
    fleet = read_fleet(["h100-sxm:16"])
    base = {
        "pool": fleet.pools[0].name,
        "micro_batch": 2,
        "precision": "bf16",
        "optimizer_kernel": "fused",
    }
    document = make_document(
        model=model,
        workload=workload(),
        fleet=fleet,
        plan=Plan(**(base | levers)),
        estimate=None,
        seed=3,
        twofold_version="test",
    )
    write_plan(document, folder / "plan.json")
    return folder / "plan.json"


@pytest.mark.parametrize("engine", ["accelerate", "deepspeed", "megatron"])
def test_a_plan_is_exported_and_imported(
    engine: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = plan_file(tmp_path, data_degree=4, zero_stage=3)
    out = tmp_path / "out"
    assert _main(["export", str(path), "--to", engine, "-o", str(out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert all(Path(one).is_file() for one in told["files"])
    assert os.access(out / "launch.sh", os.X_OK)
    assert subprocess.run(["bash", "-n", out / "launch.sh"], check=False).returncode == 0
    assert read_plan(out / "plan.json").plan.data_degree == 4
    assert _main(["import", str(out), "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)["plan"]
    assert (plan["data_degree"], plan["zero_stage"], plan["micro_batch"]) == (4, 3, 2)
    assert _main(["import", str(out)]) == 0
    assert capsys.readouterr().out.endswith("as it was exported\n")


def test_an_edited_export_tells_what_was_edited(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _main(["export", str(plan_file(tmp_path)), "--to", "deepspeed", "-o", str(tmp_path / "out")])
    config = tmp_path / "out" / "ds_config.json"
    config.write_text(config.read_text().replace('"stage": 0', '"stage": 2'))
    assert _main(["import", str(tmp_path / "out")]) == 0
    assert "edited since: zero_stage: 0 -> 2" in capsys.readouterr().out


def test_a_serving_plan_goes_to_vllm_and_comes_back(tmp_path: Path) -> None:
    levers: dict[str, Any] = {
        "tensor_degree": 4, "replicas": 2, "kv_precision": "fp8", "max_num_seqs": 64,
        "prefix_caching": False, "memory_fraction": 0.85, "threads": 4,
    }  # fmt: skip
    document = serving_document(**levers)
    write_serving_plan(document, tmp_path / "serve.json")
    out = tmp_path / "out"
    assert _main(["export", str(tmp_path / "serve.json"), "--to", "vllm", "-o", str(out)]) == 0
    assert subprocess.run(["bash", "-n", out / "launch.sh"], check=False).returncode == 0
    engine, plan = import_plan(out)
    assert engine == "vllm"
    for lever, value in levers.items():
        assert getattr(plan, lever) == value


def test_attention_groups_of_a_dense_model_are_no_plan_of_vllm(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = serving_document(tensor_degree=4, attention_data_degree=2)
    write_serving_plan(document, tmp_path / "serve.json")
    assert _main(["export", str(tmp_path / "serve.json"), "--to", "vllm"]) == 2
    assert "plan, attention_data_degree" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [
        (["--to", "megatronn"], "perhaps 'megatron' is meant"),
        (["--to", "vllm"], "the plan trains, and vLLM serves"),
        (["--to", "torchtitan"], "builds models by flavour"),
        (["--to", "accelerate"], "plan, tensor_degree"),
    ],
)
def test_bad_input_is_refused(
    arguments: list[str], wrong: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = plan_file(tmp_path, tensor_degree=2)
    assert _main(["export", str(path), *arguments, "-o", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert wrong in said
    assert " at: " in said
    assert "help: " in said
    assert not (tmp_path / "out").exists()


def test_what_is_no_export_is_not_imported(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        import_plan(tmp_path)
    _main(["export", str(plan_file(tmp_path)), "--to", "megatron", "-o", str(tmp_path / "out")])
    launch = tmp_path / "out" / "launch.sh"
    launch.write_text(launch.read_text().replace("--micro-batch-size 2", "--micro-batch-size two"))
    with pytest.raises(InputError, match="not a whole number"):
        import_plan(tmp_path / "out")
    launch.write_text(launch.read_text().replace("--micro-batch-size two", ""))
    with pytest.raises(InputError, match="no --micro-batch-size"):
        import_plan(tmp_path / "out")


@pytest.mark.parametrize(
    "model", [GPT2, LLAMA, *map(find_model, ("llama-3.1-8b", "qwen3-30b-a3b", "mixtral-8x7b"))],
    ids=lambda model: model.name,
)  # fmt: skip
def test_a_written_config_is_read_as_the_same_model(model: Model) -> None:
    read = model_from_config(huggingface_config(model, attention="sdpa"), name=model.name)
    assert (read.layers, read.head_size, read.experts) == (
        model.layers,
        model.head_size,
        model.experts,
    )


def test_a_shape_without_a_class_is_refused_with_the_nearest() -> None:
    odd = Model(
        name="odd", layers=2, hidden=64, heads=4, kv_heads=4, ffn=64, vocab=64, max_seq_len=64,
        norm="rmsnorm", activation="relu2", position="rotary", bias=False,
    )  # fmt: skip
    with pytest.raises(InputError, match="differs in activation"):
        huggingface_config(odd, attention="sdpa")


def test_the_matrix_is_one_json_document(capsys: pytest.CaptureFixture[str]) -> None:
    assert _main(["engines", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["training"]["deepspeed"]["zero_stage"] == ["0", "1", "2", "3"]
    assert "continuous" in told["serving"]["vllm"]["batching"]
