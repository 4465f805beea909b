"""The verbs that hand a plan over to another engine, read one back, and tell what each can do."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from twofold.cli.output import answer
from twofold.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Export:
    """Write what another engine needs to run a plan: arguments, configuration, launch script."""

    plan: tyro.conf.Positional[Path]
    """`plan.json`, or `serve.json` for vLLM."""
    to: str
    """accelerate, deepspeed, megatron, torchtitan, maxtext or vllm."""
    folder: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None
    """Where the files go; beside the plan, under the engine's name, where it is not given."""
    json: bool = False
    """Print one JSON document."""

    def execute(self) -> int:
        from twofold.document import read_plan
        from twofold.engines.export import export_plan, export_serving_plan, find_engine
        from twofold.serving_document import read_serving_plan

        path = self.plan / "plan.json" if self.plan.is_dir() else self.plan
        folder = self.folder or path.parent / self.to.strip().lower()
        serves = _kind_of(path) == "serving-plan"
        if self.to.strip().lower() == "vllm":
            if not serves:
                raise InputError(
                    "the plan trains, and vLLM serves",
                    at=str(path),
                    help="plan with --serve, or export to another engine",
                )
            paths = export_serving_plan(read_serving_plan(path), folder)
        else:
            engine = find_engine(self.to, at="--to")
            if serves:
                raise InputError(
                    f"the plan serves, and {engine.title} trains",
                    at=str(path),
                    help="export it to vllm, or serve it with `twofold serve`",
                )
            paths = export_plan(read_plan(path), engine, folder)
        if self.json:
            answer({"engine": self.to.strip().lower(), "files": [str(one) for one in paths]})
        else:
            names = "\n".join(f"  {one.name}" for one in paths)
            answer(f"{folder}\n{names}\nnext: {folder / 'launch.sh'}")
        return 0


@dataclass(frozen=True, kw_only=True)
class Import:
    """Read an engine's files, as `twofold export` wrote them, back into the levers of a plan."""

    folder: tyro.conf.Positional[Path]
    """The folder of an export, its values edited or not."""
    json: bool = False
    """Print one JSON document."""

    def execute(self) -> int:
        from twofold.engines.export import import_plan

        engine, plan = import_plan(self.folder)
        levers = asdict(plan)
        if self.json:
            answer({"engine": engine, "plan": levers})
            return 0
        changed = _changed(self.folder, engine, levers)
        told = [f"{name} = {json.dumps(value)}" for name, value in levers.items()]
        answer("\n".join([f"engine: {engine}", *told, changed]))
        return 0


@dataclass(frozen=True, kw_only=True)
class Engines:
    """The support matrix: which lever of a plan each engine can express, and at which values."""

    json: bool = False
    """Print one JSON document."""

    def execute(self) -> int:
        from twofold.engines.export.matrix import serving_support, support_matrix
        from twofold.report.engines_text import engines_text

        if self.json:
            answer({"training": support_matrix(), "serving": {"vllm": serving_support()}})
        else:
            answer(engines_text())
        return 0


def _kind_of(path: Path) -> Any:
    from twofold.document import read_json

    return read_json(path, dict[str, Any]).get("kind", "plan")


def _changed(folder: Path, engine: str, levers: dict[str, Any]) -> str:
    """What was edited since the export, lever by lever."""
    from twofold.document import as_json, read_plan
    from twofold.engines.export import find_engine
    from twofold.engines.export.effective import carried_plan

    if not (folder / "plan.json").is_file():
        return "levers as its files state them"
    document = read_plan(folder / "plan.json")
    ignores = find_engine(engine, at="export.json").ignores
    plan = carried_plan(document.plan, document.model, document.workload, ignores=ignores)
    before, now = as_json(plan), json.loads(json.dumps(levers))
    edited = [f"{name}: {before[name]} -> {now[name]}" for name in now if now[name] != before[name]]
    return "edited since: " + ", ".join(edited) if edited else "as it was exported"
