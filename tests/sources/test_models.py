"""The catalog's models, files of one's own, and names that do not exist."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from twofold.document import canonical_json, content_hash, from_mapping
from twofold.errors import InputError
from twofold.model import (
    Model,
    active_parameters,
    describe_model,
    inference_flop_per_token,
    num_parameters,
    operator_table,
)
from twofold.sources import find_model, model_names, published_parameters
from twofold.sources.models import hub_id

NAMES = model_names()
ROUNDED = [name for name in NAMES if name.startswith("gpt3-")]
EXACT = [name for name in NAMES if name not in ROUNDED and published_parameters(name) is not None]


def test_the_catalog_holds_what_it_promises() -> None:
    assert len(EXACT) >= 25
    assert {
        "gpt3-175b", "llama-2-70b", "llama-3.1-8b", "mixtral-8x7b", "qwen3-32b", "qwen3-30b-a3b",
        "deepseek-v3", "gpt-oss-20b", "gemma-3-27b", "bert-large", "mpt-7b", "qwen2.5-vl-7b",
        "resnet-50", "bloom-176b", "kimi-k2",
    } <= set(NAMES)  # fmt: skip


@pytest.mark.parametrize("name", EXACT)
def test_parameters_are_the_published_ones(name: str) -> None:
    assert num_parameters(find_model(name)) == published_parameters(name)


@pytest.mark.parametrize("name", ROUNDED)
def test_parameters_are_the_published_ones_up_to_their_rounding(name: str) -> None:
    assert num_parameters(find_model(name)) == pytest.approx(published_parameters(name), rel=0.01)


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("mixtral-8x7b", 12.9e9),
        ("mixtral-8x22b", 39e9),
        ("qwen3-30b-a3b", 3.3e9),
        ("qwen3-235b-a22b", 22.2e9),
        ("deepseek-v3", 37e9),
        ("kimi-k2", 32.6e9),
        ("deepseek-v2-lite", 2.6e9),
    ],
)
def test_active_parameters_are_the_published_ones(name: str, published: float) -> None:
    """DeepSeek-V2-Lite's card says 2.4 billion, without the input's table of 0.21."""
    assert active_parameters(find_model(name)) == pytest.approx(published, rel=0.03)


@pytest.mark.parametrize(("name", "published"), [("gpt-oss-20b", 3.61e9), ("gpt-oss-120b", 5.13e9)])
def test_active_parameters_of_gpt_oss_leave_out_the_embedding(name: str, published: float) -> None:
    model = find_model(name)
    active = active_parameters(model) - model.vocab * model.hidden
    assert active == pytest.approx(published, rel=0.005)


@pytest.mark.parametrize("name", NAMES)
def test_every_model_is_a_chain_and_survives_json(name: str) -> None:
    model = find_model(name)
    rows = operator_table(model)
    order = ["tower", "input", "block", "output"]
    assert [row.segment for row in rows] == sorted((row.segment for row in rows), key=order.index)
    for row in rows:
        last = row.first_layer + row.repeat - 1
        assert row.repeat >= 1
        if row.segment == "block":
            assert 1 <= row.first_layer <= last <= model.layers
    assert len({row.name for row in rows}) == len(rows)
    assert max(r.first_layer + r.repeat - 1 for r in rows if r.segment == "block") == model.layers
    read = from_mapping(json.loads(canonical_json(model)), Model, at="test")
    assert read == model
    assert content_hash(read) == content_hash(model)
    hash(model)


@pytest.mark.parametrize("name", NAMES)
def test_a_description_is_plain_data_that_adds_up(name: str) -> None:
    said = json.loads(json.dumps(describe_model(find_model(name)), allow_nan=False))
    assert said["parameters"] == sum(row["parameters"] for row in said["rows"])
    assert sum(row["flop_fraction"] for row in said["rows"]) == pytest.approx(1)
    assert said["embedded_runtime"] == (said["embedded_runtime_lack"] is None)


def test_what_the_embedded_runtime_cannot_build_is_named() -> None:
    assert describe_model(find_model("llama-3.1-8b"))["embedded_runtime"]
    for name, said in [
        ("deepseek-v3", "latent"), ("gemma-3-4b", "windows"),
        ("bert-base", "encoder"), ("qwen2.5-vl-7b", "towers"), ("resnet-50", "operator table"),
    ]:  # fmt: skip
        assert said in describe_model(find_model(name))["embedded_runtime_lack"]


def test_keys_and_values_of_a_token() -> None:
    """Llama 3.1 8B: 2 x 8 x 128 x 32 layers x 2 bytes; DeepSeek-V3: 576 x 61 x 2 (70 kB)."""
    assert describe_model(find_model("llama-3.1-8b"))["kv_bytes_per_token"] == 131_072
    assert describe_model(find_model("deepseek-v3"))["kv_bytes_per_token"] == 70_272


def test_resnet_50_has_its_published_work() -> None:
    """He et al. 2015, table 1: 3.8 billion multiply-adds; 4.09 with torchvision's strides."""
    model = find_model("resnet-50")
    assert inference_flop_per_token(model, 1) == pytest.approx(2 * 4.089e9, rel=1e-3)
    assert model.layers == 16


def test_names_are_found_by_alias_and_case() -> None:
    assert find_model("Llama-3.1-8B") == find_model("llama3-8b") == find_model("llama-3.1-8b")


def test_models_of_one_shape_keep_their_names_and_their_weights() -> None:
    first, second = find_model("llama-3.1-70b"), find_model("Llama-3.3-70B")
    assert (first.name, second.name) == ("llama-3.1-70b", "llama-3.3-70b")
    assert replace(second, name=first.name) == first
    assert hub_id(first.name) != hub_id(second.name)
    assert hub_id("gpt3-13b") is None


@pytest.mark.parametrize("name", ["", "x" * 5000, "\0", "..", "mixtral/8x7b"])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(InputError):
        find_model(name)


@pytest.mark.parametrize("name", ["llama-3.1-7b", "gpt3-175", "mixtrall-8x7b"])
def test_an_unknown_name_is_answered_with_the_nearest(name: str) -> None:
    with pytest.raises(InputError, match="there is no model") as caught:
        find_model(name)
    assert "nearest" in str(caught.value.help)


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    shape = (
        "layers = 2\nhidden = 64\nheads = 4\nkv_heads = 2\nffn = 128\nvocab = 256\n"
        "max_seq_len = 32\n"
    )
    path = tmp_path / "mine.toml"
    path.write_text(f"[model]\n{shape}[model.experts]\ncount = 4\ntop_k = 2\nffn = 32\n")
    model = find_model(str(path))
    assert model.name == "mine"
    assert model.experts is not None
    assert model.experts.top_k == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("layers = ", "not TOML"),
        ("x = 1", "no key 'x'"),
        ("x = " + "9" * 5000, "not TOML"),
        ("note = 'x'", "neither"),
        ("[model]\nlayerz = 1", "layerz"),
        ("[model]\nlayers = 1", "hidden"),
        ("[[operators]]\nname = 'a'\nkind = 'gemm'\nlayer = 0\nm = nan\nn = 1\nk = 1", "m is nan"),
        ("[[operators]]\nname = 'a'\nkind = 'conv'\nlayer = 0\nm = 1\nn = 1", "kind is 'conv'"),
        ("[[operators]]\nname = 'a'\nkind = 'gemm'\nlayer = 0\nm = 1\nn = 1", "'k' is missing"),
        ("[[operators]]\nname = 'a'\nkind = 'gemm'\nlayer = 0\nm = 1\nn = 1\nk = 1", "no blocks"),
        ("[[operators]]\nname = 'a'\nlayr = 0", "no key 'layr'"),
    ],
)
def test_a_faulty_file_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        find_model(str(path))
    assert said in str(caught.value)
    assert caught.value.help


def test_an_operator_table_keeps_its_rows() -> None:
    model = find_model("resnet-50")
    assert operator_table(model) == model.operators
    assert asdict(model)["operators"][0]["name"] == "conv1"


@pytest.mark.parametrize("name", ["/nowhere/config.json", "nowhere.toml"])
def test_a_missing_file_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        find_model(name)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"config\.json"):
        find_model(str(tmp_path))
