"""Where catalog files lie, and how those of several folders become one catalog.

Folders, the later nearer to the user: the packaged one, `$XDG_CONFIG_HOME/twofold/catalog.d`,
`./catalog.d`, and those of `$TWOFOLD_CATALOG` (separated as in `PATH`). In each, the subfolder
(`accelerators/ nodes/ links/ prices/ grids/`) says what a file describes; a file at the top says
it by `entry = "accelerator"`. They are merged figure by figure, never file by file.
"""

from __future__ import annotations

import os
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

from twofold.catalog.form import Entry, merge, rank, read_entry
from twofold.catalog.vocabulary import FOLDERS, EntryKind
from twofold.errors import InputError

PACKAGED = Path(__file__).parent
_SINGULAR = {**FOLDERS, "prices": "prices", "grids": "grids"}


def folders() -> tuple[Path, ...]:
    """The folders there are, from the packaged one to the nearest to the user."""
    home = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    named = [part for part in os.environ.get("TWOFOLD_CATALOG", "").split(os.pathsep) if part]
    for part in named:
        if not Path(part).is_dir():
            raise InputError(
                f"there is no folder '{part}'",
                at="environment variable TWOFOLD_CATALOG",
                help="name folders that hold accelerators/, nodes/ ... or unset it",
            )
    user = [Path(home) / "twofold" / "catalog.d", Path.cwd() / "catalog.d", *map(Path, named)]
    return (PACKAGED, *(folder for folder in user if folder.is_dir()))


def entries(kind: EntryKind) -> dict[str, Entry]:
    """All entries of a kind by id, merged over the folders."""
    merged: dict[str, Entry] = {}
    for layer in range(len(folders())):
        for entry in _layer_entries(kind, layer):
            known = merged.get(entry.id)
            merged[entry.id] = entry if known is None else merge(known, entry)
    return merged


def entry(kind: EntryKind, name: str) -> Entry | None:
    """The entry of exactly this id. Reads only the packaged file of that name, not all."""
    folder = next(plural for plural, singular in FOLDERS.items() if singular == kind)
    path = PACKAGED / folder / f"{name}.toml"
    found = _packaged_entry(path, kind) if _is_plain(name) and path.is_file() else None
    for layer in range(1, len(folders())):
        for other in _layer_entries(kind, layer):
            if other.id == name:
                found = other if found is None else merge(found, other)
    return found


def documents(plural: str) -> list[tuple[str, int, dict[str, Any]]]:
    """(origin, layer, content) of all files of a folder such as "prices"."""
    return [
        (_origin(path), layer, content)
        for layer, folder in enumerate(folders())
        for path, content in _files(folder, plural)
    ]


def read_toml(path: Path) -> dict[str, Any]:
    """A decoded TOML file, read once while it is unchanged."""
    try:
        stamp = path.stat()
    except OSError as error:
        raise InputError(
            f"the file cannot be read: {error.strerror}", at=str(path), help="check the path"
        ) from error
    return _decode(path, stamp.st_mtime_ns, stamp.st_size)


def _layer_entries(kind: EntryKind, layer: int) -> list[Entry]:
    plural = next(folder for folder, singular in FOLDERS.items() if singular == kind)
    if layer == 0:
        return [_packaged_entry(path, kind) for path in sorted((PACKAGED / plural).glob("*.toml"))]
    return [
        _ranked(read_entry(content, kind, origin=_origin(path), layer=layer))
        for path, content in _files(folders()[layer], plural)
    ]


@cache
def _packaged_entry(path: Path, kind: EntryKind) -> Entry:
    return _ranked(read_entry(read_toml(path), kind, origin=_origin(path), layer=0))


def _ranked(entry: Entry) -> Entry:
    return Entry(
        kind=entry.kind,
        id=entry.id,
        aliases=entry.aliases,
        settings=entry.settings,
        figures={key: rank(candidates) for key, candidates in entry.figures.items()},
        origins=entry.origins,
    )


def _files(folder: Path, plural: str) -> list[tuple[Path, dict[str, Any]]]:
    files = [(path, read_toml(path)) for path in sorted((folder / plural).glob("*.toml"))]
    if folder == PACKAGED:
        return files
    for path in sorted(folder.glob("*.toml")):
        content = read_toml(path)
        if content.get("entry") not in _SINGULAR.values():
            raise InputError(
                f"entry = {content.get('entry')!r} does not say what the file describes",
                at=f"{path}, entry",
                help="use one of " + ", ".join(sorted(_SINGULAR.values())),
            )
        if content["entry"] == _SINGULAR[plural]:
            files.append((path, content))
    return files


@cache
def _decode(path: Path, mtime_ns: int, size: int) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(
            f"the file is not TOML: {error}", at=str(path), help="correct that line"
        ) from error


def _origin(path: Path) -> str:
    """A packaged file by its place in the package, any other by its path."""
    if path.is_relative_to(PACKAGED):
        return f"twofold/catalog/{path.relative_to(PACKAGED).as_posix()}"
    return str(path)


def _is_plain(name: str) -> bool:
    return 0 < len(name) < 100 and not set(name) & {"/", "\\", "\0"} and not name.startswith(".")
