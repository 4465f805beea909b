"""Running the contestants: A/A pairs first, then blocks in which every arm runs once.

Within a block the arms run next to each other with one seed, in an order that is turned and
reversed from block to block, so that drift of the machine falls on all arms alike. Runs of an
arm at its several lengths share a process; nothing else runs beside them.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from twofold.engines import command_job, embedded_job, read_command_run, read_run
from twofold.engines.embedded import check_finished
from twofold.engines.run import Run
from twofold.errors import TwofoldError
from twofold.evidence.records import Role, Sample
from twofold.host import EnergyCounter, EnergySource, contention, observe
from twofold.launch import run_job
from twofold.measure.contestants import Contestant
from twofold.measure.execution import run_here
from twofold.measure.ledger import Ledger
from twofold.measure.progress import Progress, wait_for_quiet

AA_PAIRS = 3
_AA_STEPS, _LEAST_AA_STEPS, _AA_S = 24, 8, 10.0
_QUIET_WAIT_S = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Arena:
    """Where contestants run, who watches, and how their held-out loss is taken."""

    folder: Path
    ledger: Ledger
    progress: Progress
    evaluation_tokens: int
    energy: EnergySource
    working_folder: Path


def run_order(num_arms: int, block: int) -> list[int]:
    """Arms in order and in reverse, turned by one every two blocks.

    >>> [run_order(2, block) for block in range(4)]
    [[0, 1], [1, 0], [1, 0], [0, 1]]
    """
    turned = [(index + block // 2) % num_arms for index in range(num_arms)]
    return turned if block % 2 == 0 else turned[::-1]


def run_aa(arena: Arena, contestant: Contestant, *, seed: int, pairs: int) -> list[Sample]:
    """The baseline against itself: the noise of this machine, now.

    For the embedded runtime the pairs are short stretches of the same run in one process; a
    command is run whole.
    """
    arena.progress.note(f"A/A: '{contestant.arm.name}' against itself, {pairs} pairs")
    if contestant.document is None:
        samples = []
        for turn in range(2 * pairs):
            samples += _run_contestant(
                arena, contestant, role="aa", block=0, seed=seed, position=turn, name=f"aa-{turn}"
            )
            arena.progress.advance("A/A", turn + 1, 2 * pairs)
        return samples
    short = _short(contestant)
    place = arena.folder / "aa"
    documents = [short.document_at(0, seed)] * (2 * pairs)
    folders = [place / f"{turn:02d}" for turn in range(2 * pairs)]
    return _run_documents(
        arena,
        short,
        documents,
        folders,
        role="aa",
        block=0,
        seed=seed,
        positions=list(range(2 * pairs)),
        lengths=[0] * (2 * pairs),
        evaluate=False,
    )


def run_block(
    arena: Arena, contestants: Sequence[Contestant], *, block: int, seed: int, first_position: int
) -> list[Sample]:
    """Every contestant once, at all its lengths. A failure is written to the ledger and raised."""
    waited_s = wait_for_quiet(arena.progress, _QUIET_WAIT_S)
    if waited_s > 1.0:
        arena.ledger.add("waited", f"{waited_s:.0f} s for a quiet machine", block=block)
    samples: list[Sample] = []
    for index in run_order(len(contestants), block):
        contestant = contestants[index]
        arena.progress.note(f"block {block + 1}: '{contestant.arm.name}', seed {seed}")
        arena.ledger.add("started", "", arm=contestant.arm.name, block=block, seed=seed)
        try:
            samples += _run_contestant(
                arena,
                contestant,
                role="run",
                block=block,
                seed=seed,
                position=first_position + len(samples),
                name=f"block-{block}/{contestant.arm.name}",
            )
        except TwofoldError as error:
            arena.ledger.add(
                "failed", error.what[:500], arm=contestant.arm.name, block=block, seed=seed
            )
            raise
        except KeyboardInterrupt:
            arena.ledger.add(
                "aborted", "interrupted", arm=contestant.arm.name, block=block, seed=seed
            )
            raise
        arena.ledger.add("finished", "", arm=contestant.arm.name, block=block, seed=seed)
    return samples


def _run_contestant(
    arena: Arena,
    contestant: Contestant,
    *,
    role: Role,
    block: int,
    seed: int,
    position: int,
    name: str,
) -> list[Sample]:
    folder = arena.folder / name
    if contestant.command is not None:
        return [
            _run_command(
                arena, contestant, folder, role=role, block=block, seed=seed, position=position
            )
        ]
    lengths = list(range(len(contestant.arm.lengths_tokens)))
    if block % 2:
        lengths.reverse()
    return _run_documents(
        arena,
        contestant,
        [contestant.document_at(length, seed) for length in lengths],
        [folder / f"length-{length}" for length in lengths],
        role=role,
        block=block,
        seed=seed,
        positions=[position + turn for turn in range(len(lengths))],
        lengths=lengths,
        evaluate=True,
    )


def _run_documents(
    arena: Arena,
    contestant: Contestant,
    documents: Sequence[Any],
    folders: Sequence[Path],
    *,
    role: Role,
    block: int,
    seed: int,
    positions: Sequence[int],
    lengths: Sequence[int],
    evaluate: bool,
) -> list[Sample]:
    job = embedded_job(
        documents,
        folders,
        evaluate=["test"] if evaluate else [],
        evaluation_tokens=arena.evaluation_tokens,
    )
    windows = _Windows(arena.energy.counter)

    def on_row(row: dict[str, Any]) -> None:
        arena.progress.detail(row)
        windows.see(row)

    check_finished(job, run_here(job, documents[0], on_row, arena.progress))
    windows.close()
    samples = []
    for turn, folder in enumerate(folders):
        run = read_run(folder)
        samples.append(
            _sample(
                arena,
                contestant,
                run,
                windows.at(turn),
                role=role,
                block=block,
                seed=seed,
                position=positions[turn],
                length=lengths[turn],
                folder=folder,
            )
        )
    return samples


def _run_command(
    arena: Arena,
    contestant: Contestant,
    folder: Path,
    *,
    role: Role,
    block: int,
    seed: int,
    position: int,
) -> Sample:
    assert contestant.command is not None
    job = command_job(
        contestant.arm.name,
        contestant.command,
        folder,
        seed=seed,
        working_folder=arena.working_folder,
    )
    windows = _Windows(arena.energy.counter)
    windows.begin()
    log_start = job.log.stat().st_size if job.log.exists() else 0
    finished = run_job(job, arena.progress.detail)
    windows.close()
    run = read_command_run(contestant.command, job, finished, seed=seed, log_start=log_start)
    return _sample(
        arena,
        contestant,
        run,
        windows.at(0),
        role=role,
        block=block,
        seed=seed,
        position=position,
        length=0,
        folder=folder,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """What was seen around one run."""

    energy_j: float | None
    load_before: float | None
    load_after: float | None
    steal_fraction: float | None


class _Windows:
    """Looks at load, steal and energy around every run of a job, as its rows arrive."""

    def __init__(self, counter: EnergyCounter | None) -> None:
        self.counter = counter
        self.closed: list[Conditions] = []
        self._open: tuple[Any, Any] | None = None

    def see(self, row: dict[str, Any]) -> None:
        if row.get("event") == "start":
            self.begin()
        elif row.get("event") in ("trained", "end"):
            self.close()

    def begin(self) -> None:
        self.close()
        self._open = (observe(), self.counter.read() if self.counter else None)

    def close(self) -> None:
        if self._open is None:
            return
        before, reading = self._open
        after = observe()
        seen = contention(before, after)
        energy_j = None
        if self.counter is not None and reading is not None:
            energy_j = self.counter.between_j(reading, self.counter.read())
        self.closed.append(
            Conditions(
                energy_j=energy_j,
                load_before=before.load,
                load_after=after.load,
                steal_fraction=seen.steal_fraction,
            )
        )
        self._open = None

    def at(self, turn: int) -> Conditions:
        if turn < len(self.closed):
            return self.closed[turn]
        return Conditions(energy_j=None, load_before=None, load_after=None, steal_fraction=None)


def _sample(
    arena: Arena,
    contestant: Contestant,
    run: Run,
    seen: Conditions,
    *,
    role: Role,
    block: int,
    seed: int,
    position: int,
    length: int,
    folder: Path,
) -> Sample:
    return Sample(
        arm=contestant.arm.name,
        role=role,
        block=block,
        position=position,
        seed=seed,
        length=length,
        fixed=role == "run" and length == contestant.arm.fixed_length,
        tokens=run.tokens,
        num_steps=run.num_steps,
        startup_s=run.startup_s,
        train_s=run.train_s,
        cpu_s=run.cpu_s,
        step_time_median_s=(
            statistics.median(run.step_times_s)
            if run.step_times_s
            else run.train_s / max(1, run.num_steps)
        ),
        tune_loss=run.tune_loss,
        test_loss=None if run.diverged else run.test_loss,
        train_loss=run.train_loss,
        peak_memory_bytes=run.peak_memory_bytes,
        energy_j=seen.energy_j,
        load_before=seen.load_before,
        load_after=seen.load_after,
        steal_fraction=seen.steal_fraction,
        curve=run.curve,
        run=str(folder.relative_to(arena.folder)),
    )


def _short(contestant: Contestant) -> Contestant:
    """The contestant with one length of a few steps, for A/A: fewer where they are long."""
    assert contestant.document is not None
    steps, guess = _AA_STEPS, contestant.arm.prediction
    if guess is not None:
        steps = max(_LEAST_AA_STEPS, min(steps, int(_AA_S / guess.step_time_s)))
    tokens = steps * contestant.document.workload.tokens_per_step
    shortest = min(tokens, contestant.arm.lengths_tokens[-1])
    return replace(
        contestant, arm=replace(contestant.arm, lengths_tokens=(shortest,), fixed_length=0)
    )


def seconds_of_block(
    contestants: Sequence[Contestant], *, startup_s: float, evaluation_tokens: int
) -> float | None:
    """What a block should take by the predictions; None where an arm has none.

    Evaluation is forward only, about a third of a training step per token.
    """
    total_s = 0.0
    for contestant in contestants:
        if contestant.document is None or contestant.arm.prediction is None:
            return None
        step_tokens = contestant.document.workload.tokens_per_step
        lengths = contestant.arm.lengths_tokens
        steps = sum(tokens + evaluation_tokens / 3 for tokens in lengths) / step_tokens
        total_s += startup_s + steps * contestant.arm.prediction.step_time_s
    return total_s
