"""The ranks of one attempt that run on this machine."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from twofold.errors import EnvironmentLack
from twofold.launch.job import rank_log
from twofold.launch.process import Process, signal_group, start_process
from twofold.launch.quota import CpuQuota


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a machine is asked to run in an attempt: `arguments` are those of its Python."""

    name: str
    attempt: int
    arguments: tuple[str, ...]
    environment: dict[str, str]
    folder: str
    working_folder: str | None
    ranks: tuple[int, ...]
    num_ranks: int
    cpu_cores: tuple[float | None, ...] = ()

    def cores_of(self, rank: int) -> float | None:
        return self.cpu_cores[rank] if self.cpu_cores else None


@dataclass(frozen=True, slots=True, kw_only=True)
class RankEnd:
    """A negative code is the signal that ended it."""

    rank: int
    code: int


class Ranks:
    """Started together; `ended` tells each end once, `stop` asks and insists later."""

    def __init__(self, order: Order, environment: Mapping[str, str]) -> None:
        self._processes: dict[int, Process] = {}
        self._quotas: dict[int, CpuQuota] = {}
        self._insist_at: float | None = None
        try:
            for local_rank, rank in enumerate(order.ranks):
                cores = order.cores_of(rank)
                if cores is not None:
                    self._quotas[rank] = CpuQuota(f"rank-{rank}", cores)
                self._processes[rank] = _start(order, rank, local_rank, environment)
                if cores is not None:
                    self._quotas[rank].hold(self._processes[rank].pid)
        except BaseException:
            self.end()
            raise

    @property
    def running(self) -> bool:
        return bool(self._processes)

    def ended(self) -> list[RankEnd]:
        """Those that ended since the last call, killed ones first."""
        if self._insist_at is not None and time.monotonic() > self._insist_at:
            self._signal(signal.SIGKILL)
        ends = []
        for rank, process in list(self._processes.items()):
            code = process.poll()
            if code is not None:
                signal_group(process, signal.SIGKILL)
                del self._processes[rank]
                if rank in self._quotas:
                    self._quotas.pop(rank).close()
                ends.append(RankEnd(rank=rank, code=code))
        return sorted(ends, key=lambda end: (end.code >= 0, end.rank))

    def stop(self, number: int, grace_s: float) -> None:
        """Signal all; whatever still runs after `grace_s` is killed by a later `ended`."""
        self._signal(number)
        self._insist_at = time.monotonic() + grace_s

    def end(self) -> None:
        """Kill all and wait for them: afterwards none is left."""
        self._signal(signal.SIGKILL)
        for process in self._processes.values():
            process.wait()
        self._processes.clear()
        for quota in self._quotas.values():
            quota.close()
        self._quotas.clear()

    def _signal(self, number: int) -> None:
        for process in self._processes.values():
            signal_group(process, number)


def _start(order: Order, rank: int, local_rank: int, environment: Mapping[str, str]) -> Process:
    log = rank_log(Path(order.folder), rank)
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        output = log.open("ab")
    except OSError as error:
        raise EnvironmentLack(
            f"the log of rank {rank} cannot be written: {error.strerror}",
            at=str(log),
            help="check free space and permission; the run folder must be on a filesystem that "
            "all machines share",
        ) from error
    with output:
        return start_process(
            f"{order.name}, rank {rank}",
            (sys.executable, *order.arguments),
            output=output,
            environment={
                **environment,
                **order.environment,
                "RANK": str(rank),
                "WORLD_SIZE": str(order.num_ranks),
                "LOCAL_RANK": str(local_rank),
                "LOCAL_WORLD_SIZE": str(len(order.ranks)),
                "TWOFOLD_ATTEMPT": str(order.attempt),
            },
            working_folder=Path(order.working_folder) if order.working_folder else None,
        )
