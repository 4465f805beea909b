"""A model by name: the catalog's, a `config.json`, or a TOML of one's own.

A TOML has `[model]` with the fields of `Model`, or `[[operators]]` (see `sources.table`). In the
catalog it may say where its weights are published for use (`hub`), and which other models have
its shape (`same_shape`: their names, and where they are); those keep their names.
"""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from twofold.document import from_mapping, read_text
from twofold.errors import InputError
from twofold.model import Model
from twofold.sources.hub import model_from_hub
from twofold.sources.huggingface import model_from_config
from twofold.sources.named import import_model, scheme_of
from twofold.sources.table import network_from_table

_FOLDER = Path(__file__).parents[1] / "catalog" / "models"
_ENVELOPE = (
    "model",
    "recipe",
    "operators",
    "network",
    "aliases",
    "source",
    "note",
    "published_parameters",
    "hub",
    "same_shape",
)


def find_model(name_or_path: str) -> Model:
    """The model of a catalog name, of a folder with `config.json`, of a JSON or TOML file, or of a
    name with a scheme (see `sources.named`), which may run the user's code."""
    scheme = scheme_of(name_or_path)
    if scheme == "hf":
        return model_from_hub(name_or_path.removeprefix("hf:"))
    if scheme is not None:
        return import_model(name_or_path).model
    path = _catalog_path(name_or_path)
    if path is not None:
        own = name_or_path.lower()
        model = _read_toml(path)
        return replace(model, name=own) if own in _decode(path).get("same_shape", ()) else model
    path = Path(name_or_path).expanduser()
    if _is_folder(path):
        path = path / "config.json"
        if not path.is_file():
            raise InputError(
                "the folder has no config.json", at=str(path.parent), help="name a model's folder"
            )
    if path.suffix == ".json":
        title = path.parent.name if path.name == "config.json" else path.stem
        return model_from_config(_read_config(path), name=title or None)
    if path.suffix == ".toml":
        return _read_toml(path)
    raise _unknown(name_or_path)


def model_names() -> list[str]:
    """The names in the catalog, without aliases."""
    return sorted(path.stem for path in _FOLDER.glob("*.toml"))


def published_parameters(name: str) -> int | None:
    """What the publisher of a catalog model states or its released weights hold, if known."""
    path = _catalog_path(name)
    if path is None:
        raise _unknown(name)
    value = _decode(path).get("published_parameters")
    return None if value is None else int(value)


def hub_id(name: str) -> str | None:
    """Where the weights of a catalog model are published, as engines and the hub name them: those
    made to answer, where there are such."""
    path = _catalog_path(name)
    if path is None:
        return None
    mapping = _decode(path)
    place = mapping.get("same_shape", {}).get(name.lower(), mapping.get("hub"))
    return None if place is None else str(place)


def _catalog_path(name: str) -> Path | None:
    wanted = name.lower()
    path = _FOLDER / f"{wanted}.toml"
    if wanted in model_names():
        return path
    for path in sorted(_FOLDER.glob("*.toml")):
        if wanted in _other_names(path):
            return path
    return None


def _other_names(path: Path) -> list[str]:
    mapping = _decode(path)
    return [*mapping.get("aliases", ()), *mapping.get("same_shape", ())]


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # a text that cannot be a path
        return False


def _unknown(name: str) -> InputError:
    aliases = {
        alias: path.stem for path in sorted(_FOLDER.glob("*.toml")) for alias in _other_names(path)
    }
    near = difflib.get_close_matches(name.lower(), [*model_names(), *aliases], n=3, cutoff=0.5)
    nearest = ", ".join(f"'{one}'" for one in near)
    return InputError(
        f"there is no model '{name}'",
        at="model",
        help=(f"the nearest are {nearest}; " if near else "")
        + "name a catalog model, a config.json or a folder with one, or a TOML of your own",
    )


def _read_config(path: Path) -> dict[str, Any]:
    try:
        mapping = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"the file is not JSON: {error}", at=str(path), help="check that it is the right file"
        ) from error
    if not isinstance(mapping, dict):
        raise InputError(
            "it is not a table of keys", at=str(path), help="check that it is a model's config"
        )
    return mapping


def _read_toml(path: Path) -> Model:
    mapping, at = _decode(path), str(path)
    for key in mapping:
        if key not in _ENVELOPE:
            near = difflib.get_close_matches(key, _ENVELOPE, n=1)
            raise InputError(
                f"there is no key '{key}'",
                at=at,
                help=f"perhaps '{near[0]}' is meant" if near else "use " + ", ".join(_ENVELOPE),
            )
    if "operators" in mapping:
        return network_from_table(mapping, name=path.stem, at=at)
    shape = mapping.get("model")
    if not isinstance(shape, Mapping):
        raise InputError(
            "the file has neither [model] nor [[operators]]",
            at=at,
            help="write the shape under [model], as in docs/how-to-plan-your-model.md",
        )
    return from_mapping({"name": path.stem, **shape}, Model, at=at)


def _decode(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"the file is not TOML: {error}", at=str(path), help="correct it"
        ) from error
