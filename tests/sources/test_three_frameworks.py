"""One decoder written in PyTorch, JAX and Keras is one model; each where its framework is there."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from twofold.errors import EnvironmentLack, InputError
from twofold.model import Model
from twofold.sources.named import import_model

PLACE = "tests.sources.networks"
DECODER = Model(
    name="decoder",
    layers=4,
    hidden=256,
    heads=8,
    kv_heads=8,
    ffn=1024,
    vocab=8192,
    max_seq_len=128,
    position="none",
    tied_embeddings=False,
)


def imported(name: str) -> Model:
    found = import_model(name)
    assert found.why_chain is None
    assert not found.unrecognised
    return replace(found.model, name="decoder")


def test_in_pytorch() -> None:
    pytest.importorskip("torch", reason="PyTorch is not installed: twofold[torch]")
    assert imported(f"torch:{PLACE}.torch_networks:decoder") == DECODER


@pytest.mark.parametrize("name", ["decoder", "scanned_decoder"])
def test_in_jax(name: str) -> None:
    pytest.importorskip("jax", reason="JAX is not installed: twofold[jax]")
    assert imported(f"jax:{PLACE}.jax_networks:{name}") == DECODER


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_in_keras(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    pytest.importorskip("jax", reason="JAX is not installed: twofold[keras]")
    keras = pytest.importorskip("keras", reason="Keras is not installed: twofold[keras]")
    assert imported(f"keras:{PLACE}.keras_networks:decoder") == DECODER
    from tests.sources.networks.keras_networks import decoder

    decoder(length=None).save(tmp_path / "decoder.keras")
    found = import_model(f"keras:{tmp_path}/decoder.keras")
    assert replace(found.model, name="decoder") == DECODER
    assert found.assumed
    code = keras.Sequential([keras.Input((4,)), keras.layers.Lambda(lambda x: 2 * x)])
    code.save(tmp_path / "code.keras")
    with pytest.raises(InputError, match="cannot read the file"):
        import_model(f"keras:{tmp_path}/code.keras")


def test_values_that_decide_cannot_be_traced_in_jax() -> None:
    pytest.importorskip("jax", reason="JAX is not installed: twofold[jax]")
    with pytest.raises(InputError, match="cannot be traced: TracerBoolConversionError"):
        import_model(f"jax:{PLACE}.jax_networks:chooses")


def test_in_tensorflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if "keras" not in sys.modules:
        monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed")
    import keras

    if keras.backend.backend() != "tensorflow":
        pytest.skip("Keras runs on another framework here: KERAS_BACKEND=tensorflow")
    from tests.sources.networks.keras_networks import decoder

    decoder().export(tmp_path / "saved", verbose=False)
    assert tf.__version__
    assert imported(f"tf:{tmp_path}/saved") == DECODER


def test_a_missing_framework_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for framework, name in (("torch", "torch:a:b"), ("jax", "jax:a:b")):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, framework, None)
            with pytest.raises(EnvironmentLack) as caught:
                import_model(name)
            assert caught.value.help == f"install twofold[{framework}]"


def test_files_that_are_not_there(tmp_path: Path) -> None:
    for name in ("keras:absent.keras", "keras:old.h5", f"tf:{tmp_path}"):
        with pytest.raises(InputError):
            import_model(name)
