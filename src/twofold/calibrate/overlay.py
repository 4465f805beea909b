"""The overlay: a calibrated fleet as a JSON file that a person can read and edit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from twofold.document import read_json, write_json
from twofold.errors import InputError
from twofold.fleet import Fleet
from twofold.workload.text import cache_folder

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlay:
    """A calibration: when, on which host, under which conditions, and what came of it."""

    schema_version: int = SCHEMA_VERSION
    date: str
    host: dict[str, Any]
    fleet: Fleet


def default_overlay_path() -> Path:
    """`calibration.json` in `$TWOFOLD_HOME`, else in the user's cache."""
    return cache_folder() / "calibration.json"


def write_overlay(fleet: Fleet, path: Path, *, host: Mapping[str, Any], date: str) -> None:
    """Write atomically; EnvironmentLack where that is not possible."""
    write_json(path, asdict(Overlay(date=date, host=dict(host), fleet=fleet)))


def read_overlay(path: Path) -> Overlay:
    """Read and check an overlay; InputError says what is wrong with it."""
    if not path.exists():
        raise InputError(
            "this machine is not calibrated", at=str(path), help="run `twofold calibrate` first"
        )
    overlay = read_json(path, Overlay)
    if overlay.schema_version != SCHEMA_VERSION:
        raise InputError(
            f"schema version {overlay.schema_version} is not {SCHEMA_VERSION}",
            at=f"{path}, schema_version",
            help="run `twofold calibrate` again",
        )
    return overlay
