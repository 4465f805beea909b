"""From a name to what it names: a model or a fleet."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from twofold.catalog import Term, list_entries, list_regions, read_fleet
from twofold.catalog.vocabulary import EntryKind
from twofold.document import read_json, read_text
from twofold.errors import InputError
from twofold.fleet import Fleet
from twofold.model import Model
from twofold.sources.models import find_model, model_names
from twofold.sources.named import scheme_of


def find_subject(name: str, *, region: str | None, term: Term) -> Model | Fleet:
    """The model or the fleet of that name. InputError with the nearest of both."""
    if _is_fleet_file(name):
        return read_fleet([name], region=region, term=term)
    try:
        return find_model(name)
    except InputError as no_model:
        path = Path(name)
        if scheme_of(name) or path.suffix in (".toml", ".json") or path.is_dir():
            raise
        try:
            return read_fleet([name], region=region, term=term)
        except InputError as no_fleet:
            if ":" in name or not no_fleet.what.startswith("there is no"):
                raise
            raise InputError(
                f"'{name}' is neither a model nor a machine or accelerator",
                at="inspect",
                help=f"models: {no_model.help}; hardware: {no_fleet.help}",
            ) from no_fleet


def is_model(name: str) -> bool:
    """Whether the catalog has a model of that name or alias; files do not count."""
    if scheme_of(name) is not None or Path(name).suffix or "/" in name:
        return name in model_names()
    try:
        find_model(name)
    except InputError:
        return False
    return True


def list_catalog(kinds: Sequence[str]) -> list[dict[str, Any]]:
    """Entries of the kinds, in their order, each with kind, id and a summary."""
    rows: list[dict[str, Any]] = []
    for kind in kinds:
        if kind == "model":
            rows += [{"kind": kind, "id": name} for name in model_names()]
        elif kind == "region":
            rows += [
                {"kind": kind, "id": place, "summary": name}
                for place, name in list_regions().items()
            ]
        else:
            rows += [asdict(entry) for entry in list_entries(cast("EntryKind", kind))]
    return rows


def _is_fleet_file(name: str) -> bool:
    path = Path(name)
    if path.suffix == ".json" and path.is_file():
        content = read_json(path, dict[str, Any])
        return "fleet" in content
    if path.suffix == ".toml" and path.is_file():
        try:
            return "pool" in tomllib.loads(read_text(path))
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            raise InputError(
                f"the file is not TOML: {error}", at=name, help="correct it"
            ) from error
    return False
