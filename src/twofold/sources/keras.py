"""A Keras 3 model, from its `.keras` file in safe mode or from a user's function, as a jaxpr.

`keras:my_model.keras` reads the file; `keras:package.module:function` calls a function without
arguments that returns the model. The file's lambdas and own classes are code: Keras refuses them
in safe mode, and so do we.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from twofold.errors import EnvironmentLack, InputError
from twofold.sources.loading import user_function
from twofold.sources.trace import Trace

SEQ_LEN = 128
"""A side of the input that the model leaves open."""


def trace_keras(target: str, *, at: str) -> tuple[Trace, tuple[str, ...]]:
    """The trace of a model, and what was assumed of its input."""
    path = Path(target).expanduser()
    if path.suffix in (".h5", ".hdf5"):
        raise InputError(
            "the old HDF5 format may hold code and has no safe mode",
            at=at,
            help="save the model anew as my_model.keras",
        )
    if path.suffix == ".keras" and not path.is_file():
        raise InputError(f"there is no file '{target}'", at=at, help="check the path")
    keras = _keras(at)
    model = _loaded(keras, path, at) if path.suffix == ".keras" else _called(keras, target, at)
    if not model.built or not getattr(model, "inputs", None):
        raise InputError(
            "the model's input is not known", at=at, help="build it with an Input of its shape"
        )
    return _traced(model, at)


def _keras(at: str) -> Any:
    """Keras on JAX, whose traces need no data. The choice holds for this process only."""
    if "keras" not in sys.modules:
        os.environ["KERAS_BACKEND"] = "jax"
    try:
        import jax  # noqa: F401
        import keras
    except ImportError as error:
        raise EnvironmentLack(
            f"{error.name or 'Keras'} is not installed", at=at, help="install twofold[keras]"
        ) from error
    if keras.backend.backend() != "jax":
        raise EnvironmentLack(
            f"Keras already runs on {keras.backend.backend()} here",
            at=at,
            help="start anew with KERAS_BACKEND=jax",
        )
    return keras


def _loaded(keras: Any, path: Path, at: str) -> Any:
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:
        raise InputError(
            f"Keras cannot read the file: {str(error).strip().splitlines()[0][:200]}",
            at=at,
            help="a file with code of its own is not read: name the function that builds the "
            "model instead, as keras:my_package.my_model:build",
        ) from error


def _called(keras: Any, target: str, at: str) -> Any:
    model = user_function(target, at=at)()
    if not isinstance(model, keras.Model):
        raise InputError(
            f"the function returned {type(model).__name__}, not a Keras model",
            at=at,
            help="return the model",
        )
    return model


def _traced(model: Any, at: str) -> tuple[Trace, tuple[str, ...]]:
    import jax

    from twofold.sources.jaxprs import trace_function

    trained, others = model.trainable_variables, model.non_trainable_variables
    assumed: list[str] = []
    inputs = [_sample(tensor, assumed) for tensor in model.inputs]

    def apply(weights: Any, state: Any, *given: Any) -> Any:
        outputs, _ = model.stateless_call(weights, state, given if len(given) > 1 else given[0])
        return outputs

    shapes, frozen = (
        [jax.ShapeDtypeStruct(tuple(v.shape), v.dtype) for v in group]
        for group in (trained, others)
    )
    trace = trace_function(
        apply, (shapes,), inputs, name=model.name, framework="Keras", at=at, frozen=(frozen,)
    )
    return trace, tuple(assumed)


def _sample(tensor: Any, assumed: list[str]) -> Any:
    import jax

    open_sides = [i for i, side in enumerate(tensor.shape) if side is None and i > 0]
    if open_sides:
        assumed.append(f"the open side {open_sides[0]} of input '{tensor.name}' is {SEQ_LEN}")
    shape = [SEQ_LEN if side is None else side for side in tensor.shape]
    shape[0] = 1
    return jax.ShapeDtypeStruct(tuple(shape), tensor.dtype)
