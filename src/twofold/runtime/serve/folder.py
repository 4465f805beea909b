"""What stands beside the weights: the config, the end tokens. No framework here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from twofold.errors import InputError


def read_config(folder: Path) -> dict[str, Any] | None:
    """`config.json`; None where the folder has none, as a training run."""
    return read_mapping(folder / "config.json")


def read_mapping(path: Path) -> dict[str, Any] | None:
    """A JSON object; None where there is no such file."""
    if not path.is_file():
        return None
    try:
        mapping = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"the file cannot be read: {error}", at=str(path), help="fetch the file again"
        ) from error
    if not isinstance(mapping, dict):
        raise InputError("it is not a table of keys", at=str(path), help="fetch the file again")
    return mapping


def end_ids(folder: Path) -> frozenset[int]:
    """The tokens that end an answer: of `generation_config.json`, else of `config.json`."""
    for name in ("generation_config.json", "config.json"):
        value = (read_mapping(folder / name) or {}).get("eos_token_id")
        if value is None:
            continue
        values = value if isinstance(value, list) else [value]
        if not all(isinstance(v, int) and not isinstance(v, bool) for v in values):
            raise InputError(
                f"the end tokens are {value!r}, not numbers",
                at=f"{folder / name}, eos_token_id",
                help="fetch the file again",
            )
        return frozenset(values)
    return frozenset()
