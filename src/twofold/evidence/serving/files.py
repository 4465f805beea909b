"""`evidence.json` of a proof of serving: the envelope of training's, of another kind.

The file is {"kind": "serving-evidence", "content_hash": sha256, "evidence": {...}}.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from twofold.document import content_hash, from_mapping, write_json
from twofold.errors import InputError
from twofold.evidence.files import SCHEMA_VERSION, not_finite, parse_json
from twofold.evidence.serving.records import ServingArm, ServingEvidence

KIND = "serving-evidence"


def is_serving(path: Path) -> bool:
    """Whether the file says that it is evidence of serving."""
    envelope = parse_json(path)
    return isinstance(envelope, dict) and envelope.get("kind") == KIND


def write_serving_evidence(evidence: ServingEvidence, path: Path) -> None:
    """Write, or replace as a whole. Raises InputError for a number that is not finite."""
    content = asdict(evidence)
    for place in not_finite(content):
        raise InputError(
            "the value is not a finite number, and JSON has no form for it",
            at=f"{path}, evidence{place}",
            help="leave an unknown value None",
        )
    write_json(path, {"kind": KIND, "content_hash": content_hash(content), "evidence": content})


def read_serving_evidence(path: Path) -> tuple[ServingEvidence, bool]:
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
    evidence = from_mapping(content, ServingEvidence, at=f"{path}, evidence")
    return evidence, content_hash(content) == envelope["content_hash"]


def serving_predictions_hash(arms: Sequence[ServingArm]) -> str:
    """SHA-256 over what was predicted of each arm and the rates it is run at, in their order."""
    return content_hash(
        [
            {
                "arm": arm.name,
                "rates_per_s": arm.rates_per_s,
                "prediction": None if arm.prediction is None else asdict(arm.prediction),
            }
            for arm in arms
        ]
    )
