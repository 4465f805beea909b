"""Training runs for tuning: on the tune part only, in one process, never done twice."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from twofold import __version__
from twofold.document import content_hash, make_document, read_text, write_json
from twofold.engines import Run, embedded_job, read_run
from twofold.engines.embedded import check_finished, read_rows
from twofold.fleet import Fleet
from twofold.launch import run_job
from twofold.measure.experiment import Candidate, Experiment, TuningSpec
from twofold.measure.progress import Progress
from twofold.measure.tuned import Search
from twofold.model import Model
from twofold.plan import Plan
from twofold.workload import Corpus, Recipe, Train


class Memory:
    """What an interrupted tuning had found out, so that it goes on with the same figures."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: dict[str, Any] = json.loads(read_text(path)) if path.is_file() else {}

    def get(self, key: str) -> Any:
        return self._known.get(key)

    def put(self, key: str, value: Any) -> None:
        self._known[key] = value
        write_json(self.path, self._known)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What every trial shares: data, machine, a scratch folder and someone watching."""

    experiment: Experiment
    corpus: Corpus
    fleet: Fleet
    folder: Path
    progress: Progress
    memory: Memory

    @property
    def tuning(self) -> TuningSpec:
        assert self.experiment.tuning is not None
        return self.experiment.tuning

    @property
    def seq_len(self) -> int:
        assert self.experiment.workload is not None
        return self.experiment.workload.seq_len

    def workload(self, recipe: Recipe, tokens: int) -> Train:
        assert self.experiment.workload is not None
        return Train(
            text=self.experiment.workload.text,
            tokens=max(tokens, recipe.global_batch * self.seq_len),
            seq_len=self.seq_len,
            recipe=recipe,
            text_hash=self.corpus.text_hash,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Winner:
    """The best recipe of one candidate with the levers it ran under."""

    candidate: Candidate
    model: Model
    recipe: Recipe
    plan: Plan
    search: Search
    tokens_per_s: float


def run_trials(
    bench: Bench, model: Model, plan: Plan, wanted: list[tuple[Recipe, int]], seed: int
) -> list[Run]:
    """Run recipes for their tokens in one process, evaluated on the tune part only.

    A run that an interrupted tuning finished is not done again.
    """
    documents = [
        make_document(
            model=model,
            workload=bench.workload(recipe, tokens),
            fleet=bench.fleet,
            plan=with_batch(plan, recipe),
            estimate=None,
            seed=seed,
            twofold_version=__version__,
        )
        for recipe, tokens in wanted
    ]
    folders = [bench.folder / f"trial-{content_hash(document)[:20]}" for document in documents]
    missing = [index for index, place in enumerate(folders) if not _has_ended(place)]
    for index in missing:
        shutil.rmtree(folders[index], ignore_errors=True)
    done = len(wanted) - len(missing)

    def on_row(row: dict[str, Any]) -> None:
        nonlocal done
        bench.progress.detail(row)
        if row.get("event") == "end":
            done += 1
            bench.progress.advance("tuning trials", done, len(wanted))

    if missing:
        job = embedded_job(
            [documents[index] for index in missing],
            [folders[index] for index in missing],
            evaluate=["tune"],
            evaluation_tokens=bench.experiment.quality.evaluation_tokens,
        )
        check_finished(job, run_job(job, on_row))
    return [read_run(place) for place in folders]


def _has_ended(folder: Path) -> bool:
    path = folder / "metrics.jsonl"
    return path.is_file() and any(row.get("event") == "end" for row in read_rows(path))


def with_batch(plan: Plan, recipe: Recipe) -> Plan:
    """The plan with the recipe's whole batch as one micro-batch."""
    return replace(plan, micro_batch=recipe.global_batch)
