"""Weights from elsewhere mean here what they mean there."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("safetensors")

import torch
from safetensors.torch import load_file, save_file

from tests.runtime.serve.documents import serving_document
from twofold.errors import EnvironmentLack, InputError
from twofold.runtime.serve.assembly import make_engine
from twofold.runtime.serve.huggingface import FAMILIES
from twofold.runtime.serve.loading import load_network
from twofold.runtime.serve.messages import Request
from twofold.sources.models import find_model

GOLDEN = Path(__file__).parent / "golden"
CPU = torch.device("cpu")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_gives_the_logits_and_tokens_that_transformers_gives(family: str) -> None:
    folder = GOLDEN / family
    expected = json.loads((folder / "expected.json").read_text())
    document = serving_document(
        model=find_model(str(folder)), weights=str(folder), max_batched_tokens=11, num_blocks=16
    )
    engine = make_engine(document)
    vocab = document.model.vocab
    request = Request(
        id=0, prompt=tuple(expected["tokens"]), max_new_tokens=12, num_logprobs=vocab,
        scores_prompt=True,
    )  # fmt: skip
    engine.add(request)
    told = []
    while not engine.is_idle:
        told += engine.step()[0].tokens
    assert [token.token for token in told] == expected["greedy"]
    scores = [*(told[0].prompt_logprobs or ()), told[0].logprobs]
    for place, logits in expected["logits"].items():
        wanted = torch.tensor(logits).log_softmax(-1)
        score = scores[int(place)]
        assert score is not None
        found = torch.empty(vocab)
        for token, value in score.top:
            found[token] = value
        torch.testing.assert_close(found, wanted, atol=2e-5, rtol=1e-5)


def test_a_folder_of_another_shape_is_refused() -> None:
    folder = GOLDEN / "qwen2"
    model = replace(find_model(str(folder)), ffn=32)
    with pytest.raises(InputError, match=r"gate_proj.weight' is \[24, 16\]"):
        load_network(serving_document(model=model, weights=str(folder)), CPU)


def test_a_family_that_is_not_known_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(InputError, match="family 'gpt2'"):
        load_network(serving_document(weights=str(tmp_path)), CPU)


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="neither safetensors nor"):
        load_network(serving_document(weights=str(tmp_path)), CPU)


def copied(family: str, folder: Path, **config: Any) -> Path:
    """The model's folder, with changes of its config."""
    shutil.copytree(GOLDEN / family, folder)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    return folder


def refused(folder: Path) -> InputError:
    document = serving_document(model=find_model(str(GOLDEN / "qwen2")), weights=str(folder))
    with pytest.raises(InputError) as told:
        load_network(document, CPU)
    assert told.value.at
    assert told.value.help
    return told.value


@pytest.mark.parametrize("method", ["fp8", "gptq", "awq", "bitsandbytes", "compressed-tensors"])
def test_quantised_weights_are_refused_by_name(method: str, tmp_path: Path) -> None:
    settings = {"quant_method": method, "bits": 4}
    error = refused(copied("qwen2", tmp_path / "model", quantization_config=settings))
    assert f"quantised ({method})" in error.what
    assert str(error.at).endswith("config.json, quantization_config")
    assert "twofold serve --vllm" in str(error.help)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.int8, torch.uint8])
def test_weights_stored_as_other_numbers_are_refused(dtype: torch.dtype, tmp_path: Path) -> None:
    """No config says so, and the scale stands in a tensor of its own."""
    folder = copied("qwen2", tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    name = "model.layers.0.mlp.up_proj.weight"
    tensors |= {name: tensors[name].to(dtype), f"{name}_scale": torch.ones(24)}
    save_file(tensors, folder / "model.safetensors")
    error = refused(folder)
    assert f"'{name}' is stored in {str(dtype).removeprefix('torch.')}" in error.what


def test_a_tensor_that_nothing_uses_is_refused(tmp_path: Path) -> None:
    folder = copied("qwen2", tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    more = {"model.layers.0.mlp.up_proj.weight_scale": torch.ones(24)}
    save_file(tensors | more, folder / "model.safetensors")
    assert "no place for 'model.layers.0.mlp.up_proj.weight_scale'" in refused(folder).what
    harmless = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(2)}
    save_file(tensors | harmless, folder / "model.safetensors")
    load_network(
        serving_document(model=find_model(str(GOLDEN / "qwen2")), weights=str(folder)), CPU
    )


@pytest.mark.parametrize(
    "index",
    [
        "{",
        "[]",
        "{}",
        '{"weight_map": 3}',
        '{"weight_map": {"a": 3}}',
        '{"weight_map": {}}',
        '{"weight_map": {"a": "model-00002-of-00002.safetensors"}}',
        "[" * 100_000,
    ],
)
def test_a_malformed_index_is_refused(index: str, tmp_path: Path) -> None:
    folder = copied("qwen2", tmp_path / "model")
    (folder / "model.safetensors.index.json").write_text(index)
    refused(folder)


@pytest.mark.parametrize("kept", [0, 4, 100, 10_000])
def test_a_truncated_file_of_weights_is_refused(kept: int, tmp_path: Path) -> None:
    folder = copied("qwen2", tmp_path / "model")
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    error = refused(folder)
    assert "the weights cannot be read" in error.what
    assert error.at == str(path)


@pytest.mark.parametrize(
    "config", ["{", "[]", '{"model_type": "qwen2", "rope_scaling": 3}', "\x00", "\N{SNOWMAN}"]
)
def test_a_malformed_config_is_refused(config: str, tmp_path: Path) -> None:
    folder = copied("qwen2", tmp_path / "model")
    (folder / "config.json").write_text(config)
    refused(folder)


def test_a_folder_that_is_gone_is_told(tmp_path: Path) -> None:
    assert "there is no folder" in refused(tmp_path / "gone").what


def test_random_weights_follow_the_seed() -> None:
    def weights(**changes: Any) -> torch.Tensor:
        network = load_network(replace(serving_document(), **changes), CPU)
        weight: torch.Tensor = network.head.weight
        return weight

    assert torch.equal(weights(), weights())
    assert not torch.equal(weights(), weights(seed=4))


def test_more_blocks_than_memory_are_refused() -> None:
    with pytest.raises(EnvironmentLack, match="there is room for"):
        make_engine(serving_document(num_blocks=10**12))


@pytest.mark.slow
def test_a_trained_run_is_served_with_the_weights_it_was_trained_to(
    text: str, tmp_path: Path
) -> None:
    import subprocess

    from tests.runtime.serve.engines import Plain
    from tests.runtime.test_train import ADAMW, MODEL, command, written

    plan = written(tmp_path / "run", text, recipe=ADAMW, steps=12)
    subprocess.run(command(plan, options=("--checkpoint-every-s", "0")), check=True)
    document = serving_document(model=MODEL, weights=str(tmp_path / "run"))
    network = load_network(document, CPU)
    held_out = list(b"def f1_2(x): return x * 2 + 1\n")
    logits = Plain(network).logits(held_out)
    loss = torch.nn.functional.cross_entropy(logits[:-1], torch.tensor(held_out[1:]))
    untrained = load_network(serving_document(model=MODEL), CPU)
    naive = Plain(untrained).logits(held_out)
    assert float(loss) < float(
        torch.nn.functional.cross_entropy(naive[:-1], torch.tensor(held_out[1:]))
    )
    engine = make_engine(document)
    engine.add(
        Request(id=0, prompt=tuple(held_out), max_new_tokens=1, num_logprobs=0, scores_prompt=True)
    )
    token = engine.step()[0].tokens[0]
    scores = [score.chosen for score in token.prompt_logprobs or ()]
    assert -sum(scores) / len(scores) == pytest.approx(float(loss), abs=1e-4)
