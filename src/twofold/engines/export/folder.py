"""A folder that an engine can run as it is, and the way back from one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from twofold.document import (
    PlanDocument,
    read_json,
    read_plan,
    read_text,
    write_json,
    write_plan,
    write_text,
)
from twofold.engines.export.effective import effective_plan
from twofold.engines.export.form import Case, Engine, Files
from twofold.engines.export.registry import find_engine
from twofold.engines.export.shell import LAUNCH, number, read_arguments
from twofold.engines.export.vllm import ENGINE_NAME as VLLM
from twofold.engines.export.vllm import VLLM_VERSION, serving_files, serving_levers
from twofold.errors import InputError
from twofold.fleet import Accelerator
from twofold.launch.launchable import Launchable
from twofold.plan import Plan
from twofold.policy import num_machines
from twofold.serving_document import ServingDocument, write_serving_plan
from twofold.serving_plan import ServingPlan
from twofold.workload import prepare_corpus
from twofold.workload.train import UNSPECIFIED

_MANIFEST = "export.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a folder was written for. `version` is that of the engine whose options were read."""

    kind: Literal["export"] = "export"
    engine: str
    version: str
    files: tuple[str, ...]


def export_plan(document: PlanDocument, engine: Engine, folder: Path) -> list[Path]:
    """Write what the engine needs to run the plan. InputError for a lever it cannot express."""
    case = case_of(document)
    refusal = engine.refusal(case)
    if refusal is not None:
        raise refusal
    written = _write(engine.name, engine.version, engine.write(case), folder)
    write_plan(document, folder / "plan.json")
    return [*written, folder / "plan.json"]


def export_serving_plan(document: ServingDocument, folder: Path) -> list[Path]:
    """The same of a serving plan, for vLLM."""
    written = _write(VLLM, VLLM_VERSION, serving_files(document), folder)
    write_serving_plan(document, folder / "serve.json")
    return [*written, folder / "serve.json"]


def import_plan(folder: Path) -> tuple[str, Plan | ServingPlan]:
    """The engine that a folder is for and the levers that its files state."""
    manifest = read_json(folder / _MANIFEST, Manifest)
    files = {name: read_text(folder / name) for name in manifest.files}
    try:
        if manifest.engine == VLLM:
            return VLLM, serving_levers(files)
        return manifest.engine, find_engine(manifest.engine, at=_MANIFEST).read(files)
    except KeyError as error:
        raise InputError(
            f"there is no {error.args[0]}",
            at=f"{folder}, files of {manifest.engine}",
            help="name a folder that `twofold export` wrote; what it wrote may change its value, "
            "but must be there",
        ) from error


def launchable(folder: Path) -> Launchable:
    """An export as something to be started on its plan's machines."""
    manifest = read_json(folder / _MANIFEST, Manifest)
    if manifest.engine == VLLM:
        raise InputError(
            "a server is not started as a job",
            at=str(folder),
            help=f"start {folder / LAUNCH} on the machine that serves",
        )
    document = read_plan(folder / "plan.json")
    case = case_of(document)
    arguments = read_arguments(read_text(folder / LAUNCH))
    nodes, ranks = number(arguments, "nodes"), number(arguments, "processes")
    threads = number(arguments, "$OMP_NUM_THREADS", 1)
    accelerator = document.fleet.pool(document.plan.pool).node.accelerator
    return Launchable(
        name=f"{manifest.engine}-{document.model.name}",
        command=f"bash {LAUNCH}",
        folder=folder.resolve(),
        files=manifest.files,
        num_nodes=nodes,
        ranks_per_node=ranks,
        resource=_resource(accelerator),
        resources_per_node=ranks * threads if case.on_cpu else ranks,
        data=arguments.get("--tokens"),
    )


def _resource(accelerator: Accelerator) -> str:
    """As device plugins of Kubernetes name it."""
    if accelerator.kind in ("cpu", "tpu"):
        return {"cpu": "cpu", "tpu": "google.com/tpu"}[accelerator.kind]
    return "amd.com/gpu" if accelerator.vendor.lower() == "amd" else "nvidia.com/gpu"


def case_of(document: PlanDocument) -> Case:
    """What is handed over; the text is prepared, where the plan names one."""
    plan = effective_plan(document.plan, document.model, document.workload)
    fleet, text = document.fleet, document.workload.text
    pool = fleet.pool(plan.stages[0].pool if plan.stages else plan.pool)
    accelerator, link = pool.node.accelerator, pool.node.link("scale-up")
    domain = link.domain if link is not None and accelerator.kind == "tpu" else 0
    corpus = None if text == UNSPECIFIED else prepare_corpus(text)
    if corpus is not None and document.workload.text_hash not in (None, corpus.text_hash):
        raise InputError(
            f"the text '{text}' is not the one the plan was made for",
            at="workload, text",
            help="bring back the text, or plan again on the one that is here",
        )
    return Case(
        plan=plan,
        model=document.model,
        workload=document.workload,
        seed=document.seed,
        num_nodes=_nodes(document, plan),
        num_slices=-(-plan.num_ranks // domain) if domain else 1,
        device=accelerator.kind,
        tokens=None if corpus is None else str(Path(corpus.folder).resolve() / "train.bin"),
        token_dtype="uint16" if corpus is None else corpus.dtype,
    )


def _nodes(document: PlanDocument, plan: Plan) -> int:
    """Machines with equally many ranks, as launchers want them."""
    nodes = num_machines(plan, document.fleet)
    if plan.num_ranks % nodes:
        raise InputError(
            f"{plan.num_ranks} ranks do not divide over {nodes} machines, and launchers start as "
            "many on each",
            at="plan, data_degree",
            help="plan for whole machines, or run the plan with `twofold run`",
        )
    return nodes


def _write(engine: str, version: str, files: Files, folder: Path) -> list[Path]:
    if folder.exists() and not folder.is_dir():
        raise InputError("it is a file, not a folder", at=str(folder), help="name a folder")
    paths = []
    for name, text in files.items():
        write_text(folder / name, text)
        paths.append(folder / name)
    (folder / LAUNCH).chmod(0o755)
    manifest = {"kind": "export", "engine": engine, "version": version, "files": list(files)}
    write_json(folder / _MANIFEST, manifest)
    return [*paths, folder / _MANIFEST]
