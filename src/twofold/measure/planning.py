"""`plan`: a model file and a machine into one complete plan document."""

from __future__ import annotations

import tempfile
import tomllib
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from twofold import __version__
from twofold.document import PlanDocument, from_mapping, make_document, read_text
from twofold.errors import InputError
from twofold.fleet import Fleet
from twofold.measure.finals import choose_plan, default_plan, predicted_rows
from twofold.measure.progress import Progress
from twofold.model import Model
from twofold.perf.train import estimate
from twofold.search import shortlist
from twofold.workload import Recipe, Train, prepare_corpus
from twofold.workload.train import DEFAULT_RECIPE


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFile:
    """What a person writes for `twofold plan`: a model, and a recipe if it matters."""

    model: Model
    recipe: Recipe = field(default_factory=lambda: DEFAULT_RECIPE)


@dataclass(frozen=True, slots=True, kw_only=True)
class MadePlan:
    """The plan, and what it was chosen from. `finals` rows are in predicted order."""

    document: PlanDocument
    num_considered: int
    num_fitting: int
    rejections: dict[str, int]
    finals: list[dict[str, Any]]

    def as_mapping(self) -> dict[str, Any]:
        return {
            "num_considered": self.num_considered,
            "num_fitting": self.num_fitting,
            "rejections": self.rejections,
            "finals": self.finals,
            "document": asdict(self.document),
        }


def make_plan(
    path: Path,
    *,
    text: str,
    tokens: int,
    seq_len: int,
    global_batch: int | None,
    fleet: Fleet,
    memory_limit_bytes: float | None,
    seed: int,
    with_finals: bool,
    progress: Progress,
) -> MadePlan:
    """Search, and unless told otherwise time the finalists on this machine."""
    written = read_model_file(path)
    recipe = written.recipe
    if global_batch is not None:
        recipe = replace(recipe, global_batch=global_batch)
    model = written.model
    if seq_len > model.max_seq_len:
        raise InputError(
            f"sequences of {seq_len} tokens are longer than the model's {model.max_seq_len}",
            at="--seq-len",
            help="shorten them, or raise max_seq_len in the model file",
        )
    progress.note("preparing the text")
    corpus = prepare_corpus(text)
    if corpus.vocab > written.model.vocab:
        raise InputError(
            f"the text has token {corpus.vocab - 1}, the model a vocabulary of {model.vocab}",
            at=f"{path}, model.vocab",
            help=f"use a vocabulary of at least {corpus.vocab}",
        )
    workload = Train(
        text=text, tokens=tokens, seq_len=seq_len, recipe=recipe, text_hash=corpus.text_hash
    )
    known = model.entry is None
    listed = (
        shortlist(model, workload, fleet, memory_limit_bytes=memory_limit_bytes) if known else None
    )
    if with_finals:
        with tempfile.TemporaryDirectory(prefix="twofold-finals-") as scratch:
            plan, finals = choose_plan(
                model=model,
                workload=workload,
                fleet=fleet,
                maths="planned",
                folder=Path(scratch),
                progress=progress,
                memory_limit_bytes=memory_limit_bytes,
            )
    elif listed is not None:
        plan, finals = listed.ranked[0][0], predicted_rows(listed)
    else:
        plan, finals = default_plan(workload, fleet), []
    return MadePlan(
        document=make_document(
            model=model,
            workload=workload,
            fleet=fleet,
            plan=plan,
            estimate=estimate(model, workload, fleet, plan) if known else None,
            seed=seed,
            twofold_version=__version__,
        ),
        num_considered=listed.num_considered if listed else len(finals),
        num_fitting=listed.num_fitting if listed else len(finals),
        rejections=listed.rejected if listed else {},
        finals=finals,
    )


def read_model_file(path: Path) -> ModelFile:
    try:
        mapping = tomllib.loads(read_text(path))
    except tomllib.TOMLDecodeError as error:
        raise InputError(
            f"the file is not TOML: {error}", at=str(path), help="correct it"
        ) from error
    if "model" not in mapping:
        raise InputError(
            "the file has no [model]",
            at=str(path),
            help="name a model file; an experiment goes to `twofold prove`",
        )
    if isinstance(mapping.get("model"), dict):
        mapping["model"].setdefault("name", path.stem)
    return from_mapping(mapping, ModelFile, at=str(path))
