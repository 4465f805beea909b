"""`serve.json`: the envelope of a serving plan, as `plan.json` is of a training plan."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from twofold.document import SCHEMA_VERSION, from_mapping, part_hash, read_json, write_json
from twofold.errors import InputError
from twofold.fleet import Fleet
from twofold.model import Model
from twofold.serving_outcome import ServingEstimate
from twofold.serving_plan import ServingPlan
from twofold.workload.serve import Serve


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingDocument:
    """A serving plan with all it was made for, complete and executable alone.

    `weights` is the folder the weights are read from: safetensors in Hugging Face layout, or a
    training run of Twofold's; None where only planning is asked for, random weights where it is
    "random". `hashes` name model, workload, fleet and plan. `date` is when it was planned for.
    """

    schema_version: int = SCHEMA_VERSION
    kind: Literal["serving-plan"] = "serving-plan"
    twofold_version: str
    seed: int
    model: Model
    workload: Serve
    fleet: Fleet
    plan: ServingPlan
    estimate: ServingEstimate | None
    weights: str | None = None
    date: str | None = None
    hashes: dict[str, str]


def make_serving_document(
    *,
    model: Model,
    workload: Serve,
    fleet: Fleet,
    plan: ServingPlan,
    estimate: ServingEstimate | None,
    seed: int,
    twofold_version: str,
    weights: str | None = None,
    date: str | None = None,
) -> ServingDocument:
    """The workload is taken as it will be read again, whole numbers as the floats they stand for:
    its hash would differ otherwise."""
    workload = from_mapping(asdict(workload), Serve, at="workload")
    return ServingDocument(
        twofold_version=twofold_version,
        seed=seed,
        model=model,
        workload=workload,
        fleet=fleet,
        plan=plan,
        estimate=estimate,
        weights=weights,
        date=date,
        hashes=_hashes(model, workload, fleet, plan),
    )


def read_serving_plan(path: Path) -> ServingDocument:
    """Read and check `serve.json`; all faults are reported at once, with their places."""
    document = read_json(path, ServingDocument)
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


def write_serving_plan(document: ServingDocument, path: Path) -> None:
    write_json(path, asdict(document))


def serving_plan_schema() -> dict[str, Any]:
    """The JSON Schema of `serve.json`."""
    from pydantic import TypeAdapter

    return TypeAdapter(ServingDocument).json_schema()


def _hashes(model: Model, workload: Serve, fleet: Fleet, plan: ServingPlan) -> dict[str, str]:
    return {
        "model": part_hash(model),
        "workload": part_hash(workload),
        "fleet": part_hash(fleet),
        "plan": part_hash(plan),
    }
