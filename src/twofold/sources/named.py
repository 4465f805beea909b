"""A model by a scheme: `torch:module:function`, `jax:...`, `keras:FILE`, `tf:FOLDER`, `hf:...`.

All schemes but `hf:` run code or read files of the user's, and only because the user named them;
`executes` says beforehand what will run.
"""

from __future__ import annotations

from collections.abc import Callable

from twofold.errors import InputError
from twofold.sources.acts import read_acts
from twofold.sources.chain import network_from_acts
from twofold.sources.coverage import Imported, unrecognised, unused_parameters
from twofold.sources.trace import Trace
from twofold.sources.transformer import NotOne, transformer_from_acts

_Traced = tuple[Trace, tuple[str, ...]]


def scheme_of(name: str) -> str | None:
    """The scheme of a name, if it has one."""
    scheme, colon, _ = name.partition(":")
    return scheme if colon and scheme in (*_TRACERS, "hf") else None


def executes(name: str) -> str | None:
    """What importing a model of that name will execute, in words; None where nothing."""
    scheme, _, target = name.partition(":")
    if scheme in ("torch", "jax"):
        module, _, function = target.rpartition(":")
        return f"imports the Python module '{module}' and calls its function '{function}'"
    if scheme == "keras":
        return f"Keras reads '{target}' in its safe mode, which refuses code inside the file"
    if scheme == "tf":
        return f"TensorFlow loads the graph in '{target}'; it is not run"
    return None


def import_model(name: str) -> Imported:
    """The model that a name with a scheme of a framework means."""
    scheme, _, target = name.partition(":")
    if not target:
        raise InputError(f"'{name}' names no model", at="model", help=_HELP[scheme])
    trace, assumed = _TRACERS[scheme](target, at=name)
    return imported_from(trace, name=_title(target), assumed=assumed)


def imported_from(trace: Trace, *, name: str, assumed: tuple[str, ...] = ()) -> Imported:
    """The model of a trace: a transformer where it is one, else its chain."""
    acts = read_acts(trace)
    if not any(act.kind != "vector" for act in acts):
        raise InputError(
            "no product of matrices depends on the input",
            at=name,
            help="check that the inputs reach the network's layers",
        )
    why: str | None = None
    try:
        model, family = transformer_from_acts(trace, acts, name=name), "transformer"
    except NotOne as reason:
        model, family = network_from_acts(trace, acts, name=name), "chain of operators"
        why = str(reason)
    return Imported(
        model=model,
        framework=trace.framework,
        sample=trace.sample,
        family=family,
        why_chain=why,
        num_steps=len(acts),
        unrecognised=unrecognised(trace, acts),
        unused_parameters=unused_parameters(trace, acts),
        assumed=assumed,
    )


def _title(target: str) -> str:
    stem = target.rstrip("/").rpartition("/")[2]
    return stem.replace(":", ".")


def _torch(target: str, *, at: str) -> _Traced:
    from twofold.sources.pytorch import trace_torch

    return trace_torch(target, at=at)


def _jax(target: str, *, at: str) -> _Traced:
    from twofold.sources.jaxprs import trace_jax

    return trace_jax(target, at=at)


def _keras(target: str, *, at: str) -> _Traced:
    from twofold.sources.keras import trace_keras

    return trace_keras(target, at=at)


def _tensorflow(target: str, *, at: str) -> _Traced:
    from twofold.sources.tensorflow import trace_saved_model

    return trace_saved_model(target, at=at)


_TRACERS: dict[str, Callable[..., _Traced]] = {
    "torch": _torch,
    "jax": _jax,
    "keras": _keras,
    "tf": _tensorflow,
}
_HELP = {
    "torch": "as in torch:my_package.my_model:build",
    "jax": "as in jax:my_package.my_model:build",
    "keras": "as in keras:my_model.keras",
    "tf": "as in tf:saved_model/",
}
