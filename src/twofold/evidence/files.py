"""`evidence.json`: written atomically, with a hash of its content; read with every fault named.

The file is {"kind": "evidence", "content_hash": sha256, "evidence": {...}}, strict JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from twofold.document import content_hash, from_mapping, read_text, write_json
from twofold.errors import InputError
from twofold.evidence.records import Arm, Evidence

SCHEMA_VERSION = 1


def write_evidence(evidence: Evidence, path: Path) -> None:
    """Write, or replace as a whole. Raises InputError for a number that is not finite."""
    content = asdict(evidence)
    for place in not_finite(content):
        raise InputError(
            "the value is not a finite number, and JSON has no form for it",
            at=f"{path}, evidence{place}",
            help="leave an unknown value None",
        )
    write_json(
        path, {"kind": "evidence", "content_hash": content_hash(content), "evidence": content}
    )


def read_evidence(path: Path) -> Evidence:
    """Read evidence that is whole. Raises InputError with path and field where it is not."""
    evidence, intact = read_with_hash(path)
    if not intact:
        raise InputError(
            "the content is not what was hashed when the file was written",
            at=str(path),
            help="the file was edited or damaged; use an untouched copy, or prove again",
        )
    return evidence


def read_with_hash(path: Path) -> tuple[Evidence, bool]:
    """The evidence, and whether its content has the hash that the file names."""
    envelope = parse_json(path)
    if not isinstance(envelope, dict) or set(envelope) != {"kind", "content_hash", "evidence"}:
        raise InputError(
            "the file is not evidence of Twofold",
            at=str(path),
            help="name an evidence.json that `twofold prove` wrote",
        )
    content = envelope["evidence"]
    version = content.get("schema_version") if isinstance(content, dict) else None
    if version != SCHEMA_VERSION:
        raise InputError(
            f"schema version {version} is not {SCHEMA_VERSION}",
            at=f"{path}, evidence.schema_version",
            help="read it with the version of Twofold that wrote it",
        )
    evidence = from_mapping(content, Evidence, at=f"{path}, evidence")
    return evidence, content_hash(content) == envelope["content_hash"]


def predictions_hash(arms: Sequence[Arm]) -> str:
    """SHA-256 over what was predicted of each arm, in their order."""
    return content_hash(
        [
            {
                "arm": arm.name,
                "prediction": None if arm.prediction is None else asdict(arm.prediction),
            }
            for arm in arms
        ]
    )


def parse_json(path: Path) -> Any:
    """Strict JSON: no NaN, no infinity, no number past what a float holds."""
    try:
        value = json.loads(read_text(path), parse_constant=_refuse_constant)
        for place in not_finite(value):
            raise ValueError(f"the number at {place} is too large")
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"the file is not JSON: {error}", at=str(path), help="check that it is the right file"
        ) from error
    return value


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


def not_finite(value: Any, place: str = "") -> Iterator[str]:
    """Places of NaN, infinity, and integers past what a float holds, inside decoded JSON."""
    if isinstance(value, int | float):
        if not -sys.float_info.max <= value <= sys.float_info.max:
            yield place
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from not_finite(item, f"{place}.{key}")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from not_finite(item, f"{place}.{index}")
