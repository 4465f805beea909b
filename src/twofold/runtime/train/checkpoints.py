"""Checkpoints that are whole or absent, written while training goes on.

The run waits only until its state is copied to host memory. A thread then writes it aside, each
rank what it holds, and the first rank renames the folder once every rank has written its part.
"""

from __future__ import annotations

import json
import os
import shutil
import time
import warnings
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, cast

import torch.distributed as dist
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.metadata import Metadata
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.checkpoint.storage import WriteResult

from twofold.errors import EnvironmentLack, InputError
from twofold.runtime.train.state import Held, Saved
from twofold.runtime.train.world import World

warnings.filterwarnings("ignore", message="torch.distributed is disabled")
"""One process needs no process group; torch warns of it from the thread that writes."""

_KEPT = 2
_PROGRESS = "progress.json"
_TIMEOUT = timedelta(minutes=30)
_IN_THIS_THREAD = StagingOptions(
    use_pinned_memory=False,
    use_shared_memory=False,
    use_async_staging=False,
    use_non_blocking_copy=False,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a run is: what a layout of other ranks needs beside weights and optimizer state.

    `next_sample` is the index in the order of the whole run; `shares` are the data ranks'.
    """

    step: int = 0
    clock_s: float = 0.0
    next_sample: int = 0
    shares: tuple[int, ...] = ()


class Checkpoints:
    """The checkpoints of one run. Enter it with every rank, or with none."""

    def __init__(self, folder: Path, held: Held, world: World) -> None:
        self.folder = folder
        self.held = held
        self.world = world
        self._group = None if world.is_alone else dist.new_group(backend="gloo", timeout=_TIMEOUT)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None
        self._saved_step: int | None = None
        self.write_s = 0.0
        """How long the last write took."""

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self.finish()
        finally:
            self._leave()

    def save(self, progress: Progress) -> None:
        """Copy the state and return; a step that is saved already is not saved again.

        The write before must have ended. EnvironmentLack, on every rank alike, where it failed.
        """
        self.finish()
        if progress.step == self._saved_step:
            return
        self._saved_step = progress.step
        state = DefaultStager(_IN_THIS_THREAD).stage(self.held.state())
        self._writing = self._thread.submit(self._write, cast(dict[str, Any], state), progress)

    @property
    def has_failed(self) -> bool:
        """Whether the write under way has ended in vain; `finish` says why."""
        writing = self._writing
        return writing is not None and writing.done() and writing.exception() is not None

    def finish(self) -> None:
        """Wait for the write under way; EnvironmentLack, on every rank alike, where it failed."""
        if self._writing is None:
            return
        writing, self._writing = self._writing, None
        try:
            writing.result()
        except CheckpointException as error:
            if self.world.rank == 0:
                self._remove_scratch()
            raise EnvironmentLack(
                f"the checkpoint of step {self._saved_step} cannot be written: {_told(error)}",
                at=str(self.folder),
                help="free some space; the run resumes from the last checkpoint that is whole",
            ) from error

    def load_newest(self) -> Progress:
        """Restore the newest checkpoint in place; nothing is changed where there is none."""
        if self.world.rank == 0:
            self._remove_scratch()
        newest = max((int(path.name.removeprefix("step-")) for path in self._whole()), default=-1)
        newest = int(self.world.gather([float(newest)])[0][0])
        if newest < 0:
            return Progress()
        path = self.folder / f"step-{newest:08d}"
        self.held.prepare(Saved(newest, _names_in(path)))
        state = self.held.state()
        try:
            load(
                state,
                checkpoint_id=path,
                process_group=self._group,
                no_dist=self._group is None,
            )
            content = json.loads((path / _PROGRESS).read_text(encoding="utf-8"))
        except (OSError, ValueError, CheckpointException) as error:
            raise InputError(
                f"the checkpoint of step {newest} cannot be read: {_told(error)}",
                at=str(path),
                help="every rank needs to see this folder, and the model and the optimizer must "
                "be those it was written with; remove it to start from the one before",
            ) from error
        self.held.restore(state)
        self._saved_step = newest
        return Progress(**content | {"shares": tuple(content["shares"])})

    def _write(self, state: dict[str, Any], progress: Progress) -> None:
        """In the thread. Ranks agree on the outcome: all of them return, or all of them raise."""
        scratch = self.folder / f".step-{progress.step:08d}"
        began_s = time.perf_counter()
        writer = _Writer(scratch, self.folder / f"step-{progress.step:08d}", progress)
        save(state, storage_writer=writer, process_group=self._group, no_dist=self._group is None)
        if self._group is not None:
            dist.barrier(self._group)
        self.write_s = time.perf_counter() - began_s
        for old in self._whole()[:-_KEPT] if self.world.rank == 0 else ():
            shutil.rmtree(old, ignore_errors=True)

    def _leave(self) -> None:
        if self._writing is not None:
            wait([self._writing])
        self._thread.shutdown()
        if self._group is not None:
            dist.destroy_process_group(self._group)

    def _whole(self) -> list[Path]:
        return sorted(self.folder.glob("step-*")) if self.folder.is_dir() else []

    def _remove_scratch(self) -> None:
        for path in self.folder.glob(".step-*"):
            shutil.rmtree(path, ignore_errors=True)


class _Writer(FileSystemWriter):
    """Writes aside; `finish`, which the first rank enters after all have written, makes it whole.

    An error in it reaches every rank, as one while writing does.
    """

    def __init__(self, scratch: Path, final: Path, progress: Progress) -> None:
        super().__init__(scratch)
        self.scratch = scratch
        self.final = final
        self.progress = progress

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        super().finish(metadata, results)
        written = {result.storage_data.relative_path for rank in results for result in rank}
        missing = sorted(name for name in written if not (self.scratch / name).exists())
        if missing:
            raise FileNotFoundError(f"{missing[0]}: this folder is not the same for all ranks")
        with (self.scratch / _PROGRESS).open("w", encoding="utf-8") as stream:
            json.dump(asdict(self.progress), stream)
            stream.flush()
            os.fsync(stream.fileno())
        _sync(self.scratch)
        shutil.rmtree(self.final, ignore_errors=True)
        self.scratch.rename(self.final)
        _sync(self.final.parent)


def _names_in(path: Path) -> frozenset[str]:
    """None where it cannot be read: `load`, which all ranks enter, then says why on every rank."""
    try:
        return frozenset(FileSystemReader(path).read_metadata().state_dict_metadata)
    except Exception:
        return frozenset()


def _told(error: BaseException) -> str:
    if not isinstance(error, CheckpointException) or not error.failures:
        return str(error)
    rank, (cause, _) = next(iter(error.failures.items()))
    return f"rank {rank}: {str(cause) or type(cause).__name__}"


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
