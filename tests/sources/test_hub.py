"""Hugging Face configs by `hf:`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from twofold.errors import EnvironmentLack, InputError
from twofold.sources.models import find_model

CONFIG = {
    "model_type": "llama",
    "num_hidden_layers": 2,
    "hidden_size": 64,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "vocab_size": 1000,
}


def test_a_file_a_folder_and_the_local_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "models--some--small" / "snapshots" / "abc"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    cached = find_model("hf:some/small")
    assert cached.name == "small"
    assert cached.layers == 2
    for name in (str(folder), f"{folder}/config.json"):
        found = find_model(f"hf:{name}")
        assert (found.name, found.hidden) == ("abc", 64)


def test_offline_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(EnvironmentLack, match="forbids to fetch"):
        find_model("hf:some/small")


def test_a_hub_that_cannot_be_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(EnvironmentLack, match="cannot be reached"):
        find_model("hf:some/small")


@pytest.mark.parametrize("name", ["hf:./absent.json", "hf:absent", "hf:a/b/c"])
def test_no_such_file(name: str) -> None:
    with pytest.raises(InputError, match="there is no file"):
        find_model(name)


def test_an_unknown_family_says_what_was_read() -> None:
    from twofold.sources.huggingface import model_from_config

    with pytest.raises(InputError) as caught:
        model_from_config(CONFIG | {"model_type": "mamba9"})
    assert "num_hidden_layers 2, hidden_size 64" in (caught.value.help or "")
    assert "torch:" in (caught.value.help or "")
