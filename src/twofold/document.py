"""`plan.json`: one envelope with everything a run needs, hashed, checked on reading."""

from __future__ import annotations

import difflib
import hashlib
import json
import os
from dataclasses import asdict, dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar, cast, get_args, get_origin, get_type_hints

from twofold.errors import EnvironmentLack, InputError
from twofold.fleet import Fleet
from twofold.model import Model
from twofold.outcome import Estimate
from twofold.plan import Plan
from twofold.workload import Train

SCHEMA_VERSION = 1

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanDocument:
    """A plan with all it was made for, complete and executable alone.

    `seed` sets initialisation and data order. `hashes` name model, workload, fleet and plan;
    equal model and workload hashes mean the same mathematics. `date` ("2026-11") is when the run
    was planned for, None where its time was measured on this machine.
    """

    schema_version: int = SCHEMA_VERSION
    kind: Literal["plan"] = "plan"
    twofold_version: str
    seed: int
    model: Model
    workload: Train
    fleet: Fleet
    plan: Plan
    estimate: Estimate | None
    date: str | None = None
    hashes: dict[str, str]


def make_document(
    *,
    model: Model,
    workload: Train,
    fleet: Fleet,
    plan: Plan,
    estimate: Estimate | None,
    seed: int,
    twofold_version: str,
    date: str | None = None,
) -> PlanDocument:
    return PlanDocument(
        twofold_version=twofold_version,
        seed=seed,
        model=model,
        workload=workload,
        fleet=fleet,
        plan=plan,
        estimate=estimate,
        date=date,
        hashes=_hashes(model, workload, fleet, plan),
    )


def content_hash(value: Any) -> str:
    """SHA-256 of a dataclass or JSON value in canonical form. Finds corruption, not forgery."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def part_hash(part: Any) -> str:
    """The hash that names a part of a plan document.

    Fields that stand at their default are left out, so that a version with more fields gives
    an old part its old hash.
    """
    return content_hash(_without_defaults(part))


def _without_defaults(value: Any) -> Any:
    if is_dataclass(value):
        return {
            field.name: _without_defaults(item)
            for field in fields(value)
            if (item := getattr(value, field.name)) != field.default
        }
    if isinstance(value, list | tuple):
        return [_without_defaults(item) for item in value]
    if isinstance(value, dict):
        return {key: _without_defaults(item) for key, item in value.items()}
    return value


def as_json(value: Any) -> Any:
    """A dataclass as the mapping that reading its JSON gives: tuples are lists."""
    return json.loads(canonical_json(value))


def canonical_json(value: Any) -> str:
    if hasattr(value, "__dataclass_fields__"):
        value = asdict(value)
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def read_plan(path: Path) -> PlanDocument:
    """Read and check `plan.json`; all faults are reported at once, with their places."""
    document = read_json(path, PlanDocument)
    if document.schema_version != SCHEMA_VERSION:
        raise InputError(
            f"schema version {document.schema_version} is not {SCHEMA_VERSION}",
            at=f"{path}, schema_version",
            help="make the plan again with this version of Twofold",
        )
    expected = _hashes(document.model, document.workload, document.fleet, document.plan)
    for name, value in expected.items():
        if document.hashes.get(name) != value:
            raise InputError(
                f"the {name} is not the one that was hashed when the plan was written",
                at=f"{path}, {name}",
                help="a saved plan is executed exactly: plan again instead of editing it",
            )
    return document


def write_plan(document: PlanDocument, path: Path) -> None:
    write_json(path, asdict(document))


def plan_schema() -> dict[str, Any]:
    """The JSON Schema of `plan.json`."""
    from pydantic import TypeAdapter

    return TypeAdapter(PlanDocument).json_schema()


def read_json(path: Path, form: type[T]) -> T:
    """Parse a JSON file into a dataclass; unknown keys and wrong types are errors."""
    try:
        mapping = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"the file is not JSON: {error}", at=str(path), help="check that it is the right file"
        ) from error
    return from_mapping(mapping, form, at=str(path))


def from_mapping(mapping: Any, form: type[T], *, at: str) -> T:
    """Parse a decoded mapping (TOML, JSON) into a dataclass; all faults are told at once."""
    from pydantic import ValidationError

    unknown = _unknown_keys(mapping, form)
    if unknown:
        place, nearest = unknown[0]
        raise InputError(
            f"there is no field '{place}'",
            at=at,
            help=f"perhaps '{nearest}' is meant" if nearest else "remove it",
        )
    try:
        parsed: T = _adapter(cast(Any, form)).validate_python(mapping)
        return parsed
    except ValidationError as error:
        faults = [
            f"{'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}"
            for fault in error.errors()
        ]
        raise InputError("; ".join(faults[:6]), at=at, help="correct the file") from error
    except InputError as error:
        where = f"{at}: {error.at}" if error.at else at
        raise InputError(error.what, at=where, help=error.help) from error


@cache
def _adapter(form: Any) -> Any:
    """Building one takes tens of milliseconds, so once a form."""
    from pydantic import TypeAdapter

    return TypeAdapter(form)


def _unknown_keys(value: Any, form: Any, prefix: str = "") -> list[tuple[str, str | None]]:
    """Keys that no dataclass of `form` has, each with the nearest that exists."""
    if not is_dataclass(form):
        return _unknown_in_container(value, form, prefix)
    if not isinstance(value, dict):
        return []
    hints = get_type_hints(form)
    faults: list[tuple[str, str | None]] = []
    for key, item in value.items():
        if key in hints:
            faults += _unknown_keys(item, hints[key], f"{prefix}{key}.")
        else:
            near = difflib.get_close_matches(str(key), hints, n=1)
            faults.append((f"{prefix}{key}", near[0] if near else None))
    return faults


def _unknown_in_container(value: Any, form: Any, prefix: str) -> list[tuple[str, str | None]]:
    origin, parts = get_origin(form), get_args(form)
    if origin is dict and isinstance(value, dict):
        pairs = [(item, parts[1], f"{prefix}{key}.") for key, item in value.items()]
    elif origin in (list, tuple) and isinstance(value, list | tuple):
        pairs = [(item, parts[0], prefix) for item in value]
    elif origin in (list, tuple, dict):
        return []
    else:
        pairs = [(value, part, prefix) for part in parts if is_dataclass(part) or get_args(part)]
    return [fault for item, part, place in pairs for fault in _unknown_keys(item, part, place)]


def read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise InputError(
            f"the file cannot be read: {reason}", at=str(path), help="check the path"
        ) from error


def write_json(path: Path, value: Any) -> None:
    """Write atomically: a reader, or a crash, sees the old file or the new one."""
    text = json.dumps(value, indent=1, allow_nan=False)
    write_text(path, text + "\n")


def write_text(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            with scratch.open("w", encoding="utf-8") as stream:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
            scratch.replace(path)
        except BaseException:
            scratch.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise EnvironmentLack(
            f"the file cannot be written: {error.strerror}",
            at=str(path),
            help="check free space and permission; nothing written before is lost",
        ) from error


def _hashes(model: Model, workload: Train, fleet: Fleet, plan: Plan) -> dict[str, str]:
    return {
        "model": part_hash(model),
        "workload": part_hash(workload),
        "fleet": part_hash(fleet),
        "plan": part_hash(plan),
    }
