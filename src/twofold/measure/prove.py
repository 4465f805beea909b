"""The proof: plan the arms, write down what is expected, measure in pairs, derive, judge.

A proof lives in one folder. `proof.json` holds everything fixed before the first sample (arms,
plans, predictions, seeds, number of blocks); `samples.jsonl` grows a block at a time; when the
last block is in, `evidence.json` is derived from the two. An interrupted proof is resumed from
them: a block that was cut short is run again whole, and the ledger says so.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from twofold import __version__
from twofold.document import from_mapping, read_text, write_text
from twofold.engines.command import command_words
from twofold.errors import EnvironmentLack, InputError
from twofold.evidence import SCHEMA_VERSION, derive, predictions_hash, write_evidence
from twofold.evidence.derive import derive_noise_floor
from twofold.evidence.files import read_evidence
from twofold.evidence.records import Evidence, Sample
from twofold.fleet import Fleet
from twofold.host import describe_host, find_energy_source, git_commit
from twofold.host.description import virtualisation
from twofold.measure.blocks import AA_PAIRS, Arena, run_aa, run_block, seconds_of_block
from twofold.measure.contestants import (
    Contestant,
    command_contestant,
    embedded_contestant,
    placed_contestant,
    restored_contestant,
)
from twofold.measure.experiment import Experiment, read_experiment
from twofold.measure.folders import free_folder
from twofold.measure.ledger import Ledger
from twofold.measure.progress import Progress
from twofold.measure.threats import threats
from twofold.measure.tuned import Tuned, read_tuned, tuning_bill
from twofold.model import training_flop_per_token
from twofold.perf.roofs import roof_bytes_per_s, roof_flop_per_s, roofline_rows
from twofold.workload import Corpus, prepare_corpus

LEAST_BLOCKS = 3
_SEEDS_FROM = 1000
_STARTUP_GUESS_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """A proof under way or done: where it lies, and what it has found so far."""

    folder: Path
    evidence: Evidence

    @property
    def path(self) -> Path:
        return self.folder / "evidence.json"


def prove(
    experiment_path: Path,
    *,
    runs: Path,
    fleet: Fleet | None,
    progress: Progress,
    seed: int = _SEEDS_FROM,
    quick: bool = False,
) -> Proof:
    """Run an experiment from the start. `fleet` is needed where arms run in the runtime here."""
    experiment, written = read_experiment(experiment_path)
    started = time.perf_counter()
    _find_programs(experiment)
    folder = free_folder(runs, experiment.name)
    progress.note(f"proof folder: {folder}")
    ledger = Ledger(runs / f"{experiment.name}.ledger.jsonl")
    ledger.add("proof", f"{folder.name}{' (smoke test)' if quick else ''}", seed=seed)
    tuned, corpus = _prepare(experiment, progress)
    _refuse_used_seeds(tuned, seed, experiment.budget.blocks)
    contestants = _contestants(experiment, tuned, corpus, fleet, folder, progress, quick=quick)
    draft = _draft(experiment, written, contestants, tuned, fleet, corpus, quick=quick)
    ledger.add("predicted", f"sha256 {draft.predictions_hash}", seed=seed)
    arena = _arena(experiment, folder, ledger, progress, fleet)
    baseline = next(c for c in contestants if c.arm.name == experiment.comparisons[0].baseline)
    noise = run_aa(arena, baseline, seed=seed - 1, pairs=AA_PAIRS)
    planned = _num_blocks(experiment, contestants, noise, started, quick=quick)
    draft = replace(
        draft,
        samples=noise,
        planned_blocks=planned,
        environment={
            **draft.environment,
            "first_seed": seed,
            "working_folder": str(Path.cwd()),
        },
    )
    write_evidence(draft, folder / "proof.json")
    ledger.add("planned", f"{planned} blocks", seed=seed)
    return _finish(draft, contestants, arena, started)


def resume(folder: Path, *, progress: Progress, fleet: Fleet | None) -> Proof:
    """Go on with an interrupted proof, from the first block that is not whole."""
    if not (folder / "proof.json").is_file():
        raise InputError(
            "the folder holds no proof that was begun",
            at=str(folder),
            help="start again with `twofold prove EXPERIMENT`; nothing was measured yet",
        )
    draft = read_evidence(folder / "proof.json")
    experiment = from_mapping(
        _named_models(draft.experiment), Experiment, at=f"{folder}/proof.json, experiment"
    )
    contestants = [restored_contestant(arm, experiment) for arm in draft.arms]
    ledger = Ledger(folder.parent / f"{experiment.name}.ledger.jsonl")
    ledger.add("resumed", folder.name)
    working_folder = Path(str(draft.environment["working_folder"]))
    arena = replace(
        _arena(experiment, folder, ledger, progress, fleet), working_folder=working_folder
    )
    return _finish(draft, contestants, arena, time.perf_counter())


def _finish(
    draft: Evidence, contestants: Sequence[Contestant], arena: Arena, started: float
) -> Proof:
    """Run the blocks that are missing, then derive and write the evidence."""
    folder = arena.folder
    first_seed = int(draft.environment["first_seed"])
    samples = _whole_blocks(_read_samples(folder / "samples.jsonl"), draft)
    _rewrite_samples(folder / "samples.jsonl", samples)
    done = {sample.block for sample in samples}
    for block in [block for block in range(draft.planned_blocks) if block not in done]:
        arena.progress.advance("blocks", block, draft.planned_blocks)
        fresh = run_block(
            arena,
            contestants,
            block=block,
            seed=first_seed + block,
            first_position=len(samples),
        )
        _append_samples(folder / "samples.jsonl", fresh)
        samples += fresh
    arena.progress.advance("blocks", draft.planned_blocks, draft.planned_blocks)
    evidence = replace(
        draft,
        samples=[*draft.samples, *samples],
        environment={k: v for k, v in draft.environment.items() if k != "working_folder"},
        ledger=arena.ledger.entries(),
        energy_grade=arena.energy.grade if arena.energy.counter else "unknown",
        wall_s=time.perf_counter() - started,
    )
    evidence = replace(evidence, threats=threats(evidence))
    evidence = replace(evidence, derived=derive(evidence))
    write_evidence(evidence, folder / "evidence.json")
    for result in evidence.derived.results if evidence.derived else []:
        arena.ledger.add(
            result.verdict, f"{folder.name}: {result.kind}, {result.arm} over {result.baseline}"
        )
    return Proof(folder=folder, evidence=evidence)


def _prepare(experiment: Experiment, progress: Progress) -> tuple[Tuned | None, Corpus | None]:
    if experiment.workload is None:
        return None, None
    if not experiment.needs_tuning:
        progress.note("preparing the text")
        return None, prepare_corpus(experiment.workload.text)
    if experiment.tuned is None or not Path(experiment.tuned).is_file():
        raise InputError(
            "the experiment has no tuned recipes yet",
            at=f"experiment, tuned ({experiment.tuned or 'not named'})",
            help="make them with `twofold prove EXPERIMENT --retune`",
        )
    progress.note("preparing the text")
    return read_tuned(Path(experiment.tuned)), prepare_corpus(experiment.workload.text)


def _contestants(
    experiment: Experiment,
    tuned: Tuned | None,
    corpus: Corpus | None,
    fleet: Fleet | None,
    folder: Path,
    progress: Progress,
    *,
    quick: bool,
) -> list[Contestant]:
    contestants = []
    for name, spec in experiment.arms.items():
        if spec.command is not None:
            contestants.append(command_contestant(name, spec))
            continue
        assert corpus is not None
        if spec.placement is not None:
            contestants.append(
                placed_contestant(name, experiment, corpus=corpus, progress=progress, quick=quick)
            )
            continue
        assert tuned is not None and corpus is not None and fleet is not None  # noqa: PT018
        contestants.append(
            embedded_contestant(
                name,
                experiment,
                tuned=tuned,
                corpus=corpus,
                fleet=fleet,
                folder=folder,
                progress=progress,
                quick=quick,
            )
        )
    return contestants


def _draft(
    experiment: Experiment,
    written: dict[str, Any],
    contestants: Sequence[Contestant],
    tuned: Tuned | None,
    fleet: Fleet | None,
    corpus: Corpus | None,
    *,
    quick: bool,
) -> Evidence:
    """The evidence as far as it is known before anything is measured."""
    arms = [contestant.arm for contestant in contestants]
    documents = {c.arm.name: c.document for c in contestants if c.document is not None}
    known = {name: d for name, d in documents.items() if d.model.entry is None}
    on_one = {name: d for name, d in known.items() if d.plan.num_ranks == 1}
    return Evidence(
        schema_version=SCHEMA_VERSION,
        twofold_version=__version__,
        name=experiment.name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        smoke=quick,
        target_loss=None if tuned is None or quick else tuned.target_loss,
        target_origin=_target_origin(tuned, corpus),
        margin=experiment.quality.margin,
        comparisons=[(c.kind, c.arm, c.baseline) for c in experiment.comparisons],
        arms=arms,
        samples=[],
        predictions_hash=predictions_hash(arms),
        predicted_order=_predicted_order(contestants),
        finals=[row for contestant in contestants for row in contestant.finals],
        tuning=None if tuned is None else tuning_bill(tuned),
        roof_flop_per_s={} if fleet is None else roof_flop_per_s(fleet),
        roof_bytes_per_s=None if fleet is None else roof_bytes_per_s(fleet),
        arm_flop_per_token={
            name: training_flop_per_token(d.model, d.workload.seq_len) for name, d in known.items()
        },
        arm_roofline={
            name: roofline_rows(d.model, d.workload, d.fleet, d.plan) for name, d in on_one.items()
        },
        energy_grade="unknown",
        environment={
            "host": describe_host(),
            "commit": git_commit(Path.cwd()),
            "text_hash": None if corpus is None else corpus.text_hash,
        },
        experiment=written,
        ledger=[],
        planned_blocks=0,
        wall_s=0.0,
        threats=[],
        derived=None,
    )


def _target_origin(tuned: Tuned | None, corpus: Corpus | None) -> str:
    if tuned is None or corpus is None:
        return "no target: arms are compared at the length they run"
    origin = (
        f"mean loss of the baseline on the tune part, {len(tuned.seeds)} seeds, "
        f"fixed when the recipes were tuned ({tuned.created})"
    )
    if tuned.text_hash != corpus.text_hash:
        origin += "; the text here differs from the one tuned on (another Python version)"
    return origin


def _predicted_order(contestants: Sequence[Contestant]) -> list[dict[str, Any]]:
    """Arms from the fastest predicted step per token to the slowest."""
    rows = [
        {
            "arm": c.arm.name,
            "predicted_s_per_token": c.arm.prediction.step_time_s
            / c.document.workload.tokens_per_step,
        }
        for c in contestants
        if c.arm.prediction is not None and c.document is not None
    ]
    return sorted(rows, key=lambda row: float(str(row["predicted_s_per_token"])))


def _num_blocks(
    experiment: Experiment,
    contestants: Sequence[Contestant],
    noise: Sequence[Sample],
    started: float,
    *,
    quick: bool,
) -> int:
    """As many as the A/A spread asks for, within the wall budget, and never under three."""
    if quick:
        return LEAST_BLOCKS
    floor = derive_noise_floor(noise)
    wanted = experiment.budget.blocks if floor is None else floor.pairs_needed
    block_s = seconds_of_block(
        contestants,
        startup_s=_STARTUP_GUESS_S,
        evaluation_tokens=experiment.quality.evaluation_tokens,
    )
    if block_s is not None:
        left_s = experiment.budget.wall_s - (time.perf_counter() - started)
        wanted = min(wanted, int(left_s / block_s))
    elif experiment.has_commands:
        wanted = experiment.budget.blocks
    return max(LEAST_BLOCKS, min(experiment.budget.blocks, wanted))


def _arena(
    experiment: Experiment,
    folder: Path,
    ledger: Ledger,
    progress: Progress,
    fleet: Fleet | None,
) -> Arena:
    kind = fleet.pools[0].node.accelerator.kind if fleet is not None else "cpu"
    source = find_energy_source(
        "cuda" if kind == "gpu" else "cpu", virtual=virtualisation()["machine"] is not None
    )
    return Arena(
        folder=folder,
        ledger=ledger,
        progress=progress,
        evaluation_tokens=experiment.quality.evaluation_tokens,
        energy=source,
        working_folder=Path.cwd(),
    )


def _find_programs(experiment: Experiment) -> None:
    """Every command's program must be there before the first of them is run for minutes."""
    for name, arm in experiment.arms.items():
        if arm.command is None:
            continue
        program = command_words(name, arm.command)[0]
        if shutil.which(program) is None:
            raise InputError(
                f"there is no program '{program}'",
                at=f"arm '{name}', command",
                help="check its name and PATH; a relative path starts from the current folder",
            )


def _refuse_used_seeds(tuned: Tuned | None, seed: int, blocks: int) -> None:
    used = set(tuned.seeds) & set(range(seed, seed + blocks)) if tuned is not None else set()
    if used:
        raise InputError(
            f"the seeds {sorted(used)} were used in tuning",
            at="--seed",
            help=f"start from another, for example {_SEEDS_FROM}",
        )


def _append_samples(path: Path, samples: Sequence[Sample]) -> None:
    """One write a block; what a full disk tears is dropped when the proof is resumed."""
    try:
        with path.open("a", encoding="utf-8") as stream:
            stream.write(_as_lines(samples))
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        raise EnvironmentLack(
            f"samples cannot be written: {error.strerror}",
            at=str(path),
            help="free some space, then `twofold prove --resume` this folder",
        ) from error


def _rewrite_samples(path: Path, samples: Sequence[Sample]) -> None:
    """Leave only what counts in the file, before more is appended."""
    if path.exists():
        write_text(path, _as_lines(samples))


def _as_lines(samples: Sequence[Sample]) -> str:
    return "".join(json.dumps(asdict(sample)) + "\n" for sample in samples)


def _whole_blocks(samples: Sequence[Sample], draft: Evidence) -> list[Sample]:
    """Samples of the blocks in which every arm ran at every length."""
    wanted = sum(len(arm.lengths_tokens) for arm in draft.arms)
    found = Counter(sample.block for sample in samples)
    return [sample for sample in samples if found[sample.block] == wanted]


def _read_samples(path: Path) -> list[Sample]:
    if not path.exists():
        return []
    samples = []
    for line in read_text(path).splitlines():
        try:
            samples.append(from_mapping(json.loads(line), Sample, at=str(path)))
        except ValueError:
            break
    return samples


def _named_models(written: dict[str, Any]) -> dict[str, Any]:
    models = {name: {"name": name, **fields} for name, fields in written.get("models", {}).items()}
    return {**written, "models": models}
