"""Keeps a run of many ranks going: attempts, from the newest checkpoint, until it has ended.

When a rank dies the others cannot go on without it, so all are stopped and started again. When a
machine dies the run goes on with those that are left. The store of each attempt is a process of
its own at a fresh port: nothing that a dead rank left is met by a new one.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from twofold.errors import JobFailed, TwofoldError
from twofold.launch.events import Events
from twofold.launch.hosts import Host, Team
from twofold.launch.interruption import Interruption
from twofold.launch.job import Finished, Job, rank_log
from twofold.launch.process import children_cpu_s
from twofold.launch.ranks import Order, RankEnd
from twofold.launch.rows import Follower, Row, last_lines
from twofold.launch.store import Store, store_log
from twofold.launch.verdict import (
    ERRORS,
    INTERRUPTED,
    SAVE_S,
    AttemptEnd,
    Kind,
    describe_code,
    indent,
    judge,
)

_POLL_S = 0.05
_SETTLE_S, _PATIENT_SETTLE_S = 1.0, 15.0
"""Ranks that lost their peer end by themselves. While only such have ended, the one with the reason
is still on its way, and on a busy machine that takes a while."""
_GRACE_S, _OVERDUE_S = 2.0, 30.0

Placement = tuple[tuple[int, ...], ...]
Note = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Smaller:
    """The job on fewer ranks; `kept[i]` is the rank, before, that is rank `i` now."""

    job: Job
    kept: tuple[int, ...]
    plan: str


Shrink = Callable[[int, Sequence[int]], Smaller]
"""(attempt, lost ranks) -> what to go on with; a TwofoldError says why it cannot."""


class Supervisor:
    """`placement` holds the ranks of each host of the team, in its order.

    `max_restarts` bounds restarts in a row without a new checkpoint between them: a run that
    moves may lose ranks forever, one that cannot start ends soon.
    """

    def __init__(
        self,
        job: Job,
        team: Team,
        placement: Placement,
        *,
        interruption: Interruption,
        max_restarts: int,
        shrink: Shrink | None = None,
        on_row: Callable[[Row], None] | None = None,
        note: Note = lambda text: None,
    ) -> None:
        self.job = job
        self.team = team
        self.ranks_of = dict(zip((host.index for host in team.hosts), placement, strict=True))
        self.max_restarts = max_restarts
        self._interruption = interruption
        self._shrink = shrink
        self._on_row = on_row
        self._note = note
        self._events = Events(job.folder / "events.jsonl")
        self._followers = [Follower(path) for path in job.metrics]
        self._started_at = self._attempted_at = time.time()
        self._used_before_s = children_cpu_s()
        self._fruitless = 0

    def run(self) -> Finished:
        """Until all ranks are done, it is interrupted, or nothing more can be tried."""
        self._events.add("run_start", num_ranks=self.job.num_ranks, hosts=self._host_names())
        while True:
            before = self._newest_checkpoint()
            try:
                end = self._attempt()
                if end.lost and end.kind in ("died", "failed"):
                    self._go_on_without(end.lost)
                    self._events.attempt += 1
                    continue
                if end.kind == "died":
                    self._count_restart(end, before)
                    self._events.attempt += 1
                    continue
            except TwofoldError as error:
                with suppress(TwofoldError):
                    self._events.add("failed", why=error.what)
                raise
            return self._finished(end)

    def _attempt(self) -> AttemptEnd:
        self._attempted_at = time.time()
        self._events.add(
            "attempt_start",
            num_ranks=self.job.num_ranks,
            hosts=self._host_names(),
            checkpoint=self._newest_checkpoint() or None,
        )
        lost = tuple(host for host in self.team.hosts if host.lost)
        if lost:
            return AttemptEnd(kind="died", lost=lost)
        try:
            with Store(self.team.address, self.job.folder) as store:
                for host in self.team.hosts:
                    host.start(self._order(host, store))
                self._events.add("ranks_started")
                end = self._watch(store)
        finally:
            self._end_all()
        self._deliver()
        self._events.add("attempt_stopped", how=end.kind)
        return end

    def _order(self, host: Host, store: Store) -> Order:
        job = self.job
        return Order(
            name=job.name,
            attempt=self._events.attempt,
            arguments=job.argv[1:],
            environment={
                **job.environment,
                **store.environment,
                "TWOFOLD_STARTED_AT": repr(self._attempted_at),
            },
            folder=str(job.folder),
            working_folder=str(job.working_folder) if job.working_folder else None,
            ranks=self.ranks_of[host.index],
            num_ranks=job.num_ranks,
            cpu_cores=job.cpu_cores,
        )

    def _watch(self, store: Store) -> AttemptEnd:
        """Until no rank runs. The first thing that goes wrong stops all; later ends follow it."""
        kind: Kind = "done"
        causes: list[RankEnd] = []
        settle_from: float | None = None
        stopping, asked = False, 0
        while any(host.running and not host.lost for host in self.team.hosts):
            self.team.pump(_POLL_S)
            self._deliver()
            for host in self.team.hosts:
                for end in host.ended():
                    cannot_save = asked and end.code in ERRORS
                    if (end.code and not stopping) or cannot_save:
                        causes.append(end)
                        self._report_end(host, end)
                    if cannot_save:
                        self._stop_all(signal.SIGINT, _OVERDUE_S)
            if self._lost_ranks() and not stopping:
                kind, stopping = "died", True
                self._stop_all(signal.SIGTERM, _GRACE_S)
            requests = max(self._interruption.count, self.team.interrupts)
            if requests > asked:
                self._stop_all(signal.SIGINT if requests == 1 else signal.SIGKILL, SAVE_S)
                kind, stopping, asked = "interrupted", True, requests
            if stopping:
                continue
            if self._is_overdue():
                kind, stopping = "timed_out", True
                self._stop_all(signal.SIGINT, _OVERDUE_S)
            elif causes and settle_from is None:
                settle_from = time.monotonic()
            elif settle_from is not None and time.monotonic() - settle_from > _settle_s(causes):
                stopping = True
                self._stop_all(signal.SIGTERM, _GRACE_S)
            elif not causes and store.ended:
                kind, stopping = "died", True
                self._stop_all(signal.SIGTERM, _GRACE_S)
        if kind == "done" and self._lost_ranks():
            kind = "died"
        lost = tuple(host for host in self.team.hosts if host.lost)
        if not (kind == "interrupted" and lost):
            kind = judge(kind, causes)
        return AttemptEnd(kind=kind, causes=tuple(causes), lost=lost)

    def _lost_ranks(self) -> bool:
        """A machine whose ranks had all ended is no loss."""
        return any(host.lost and host.running for host in self.team.hosts)

    def _count_restart(self, end: AttemptEnd, checkpoint_before: str) -> None:
        if end.causes:
            first = end.causes[0]
            how, log = (
                f"rank {first.rank} died ({describe_code(first.code)})",
                self._log(first.rank),
            )
        else:
            how, log = "the store of the ranks ended", store_log(self.job.folder)
        newest = self._newest_checkpoint()
        self._fruitless = 1 if newest != checkpoint_before else self._fruitless + 1
        if self._fruitless > self.max_restarts:
            again = f" {self._fruitless} times without a new checkpoint between"
            raise JobFailed(
                how + (again if self.max_restarts else "") + f":\n{indent(last_lines(log))}",
                at=str(log),
                help="the log has the whole output; what the run wrote before is kept",
            )
        self._note(f"{how}; starting again from {newest or 'the beginning'}")

    def _go_on_without(self, lost: tuple[Host, ...]) -> None:
        names = ", ".join(f"host {host.index} ({host.name})" for host in lost)
        gone = [rank for host in lost for rank in self.ranks_of.pop(host.index)]
        self._events.add("hosts_lost", hosts=[host.name for host in lost], ranks=sorted(gone))
        for host in lost:
            self.team.hosts.remove(host)
        if not self.team.hosts or self._shrink is None:
            raise JobFailed(
                f"{names} lost, and nothing is left to go on with",
                help="start again: the run goes on from its checkpoint",
            )
        if not gone:
            return
        try:
            smaller = self._shrink(self._events.attempt + 1, gone)
        except TwofoldError as error:
            raise JobFailed(f"{names} lost: {error.what}", at=error.at, help=error.help) from error
        new_rank = {old: new for new, old in enumerate(smaller.kept)}
        self.ranks_of = {
            index: tuple(new_rank[rank] for rank in ranks if rank in new_rank)
            for index, ranks in self.ranks_of.items()
        }
        self._note(
            f"{names} lost; going on with {smaller.job.num_ranks} of {self.job.num_ranks} ranks "
            f"from {self._newest_checkpoint() or 'the beginning'}"
        )
        self.job = smaller.job
        self._events.add("shrunk", plan=smaller.plan, num_ranks=smaller.job.num_ranks)
        for host in [host for host in self.team.hosts if not self.ranks_of[host.index]]:
            host.dismiss(0, "its ranks were parts of data ranks that another machine's loss broke")
            self.team.hosts.remove(host)

    def _finished(self, end: AttemptEnd) -> Finished:
        code, rank = 0, 0
        if end.kind == "interrupted":
            code = INTERRUPTED
            self._events.add("interrupted")
        elif end.kind == "done":
            self._events.add("finished")
        else:
            if end.causes:
                first = next((e for e in end.causes if e.code in ERRORS), end.causes[0])
                code, rank = first.code, first.rank
            self._events.add("failed", why=end.kind, rank=rank, code=code)
        return Finished(
            returncode=code,
            started_at=self._started_at,
            wall_s=time.time() - self._started_at,
            cpu_s=children_cpu_s() - self._used_before_s,
            timed_out=end.kind == "timed_out",
            last_lines=last_lines(self._log(rank)),
        )

    def _report_end(self, host: Host, end: RankEnd) -> None:
        if end.code != INTERRUPTED:
            how = {"signal": -end.code} if end.code < 0 else {"code": end.code}
            self._events.add("rank_died", rank=end.rank, host=host.name, **how)

    def _is_overdue(self) -> bool:
        limit_s = self.job.timeout_s
        return limit_s is not None and time.time() - self._started_at > limit_s

    def _stop_all(self, number: int, grace_s: float) -> None:
        for host in self.team.hosts:
            host.stop(number, grace_s)

    def _end_all(self) -> None:
        for host in self.team.hosts:
            host.end()

    def _deliver(self) -> None:
        for follower in self._followers:
            for row in follower.rows():
                if self._on_row is not None:
                    self._on_row(row)

    def _host_names(self) -> list[str]:
        return [host.name for host in self.team.hosts]

    def _log(self, rank: int) -> Path:
        return rank_log(self.job.folder, rank)

    def _newest_checkpoint(self) -> str:
        folder = self.job.folder / "checkpoints"
        return max((path.name for path in folder.glob("step-*")), default="")


def _settle_s(causes: Sequence[RankEnd]) -> float:
    """How long to wait for further ends: a killed rank, or one that told its error, is reason
    enough."""
    told = any(end.code < 0 or end.code in (*ERRORS, INTERRUPTED) for end in causes)
    return _SETTLE_S if told else _PATIENT_SETTLE_S
