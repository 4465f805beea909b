"""The head of a run on many machines: takes in their agents, and knows which of them live."""

from __future__ import annotations

import secrets
import select
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from twofold.errors import EnvironmentLack
from twofold.launch.hosts import Host
from twofold.launch.interruption import Interruption
from twofold.launch.ranks import Order, RankEnd
from twofold.launch.store import listen
from twofold.launch.wire import Connection, Message, make_token, proof, proves

_PROVE_WITHIN_S = 10.0
_LEAVE_WITHIN_S = 5.0


class RemoteHost:
    """A machine whose agent holds this connection; what it runs ends with it."""

    def __init__(self, index: int, name: str, connection: Connection, lost_after_s: float) -> None:
        self.index = index
        self.name = name
        self.connection = connection
        self.interrupts = 0
        self._lost_after_s = lost_after_s
        self._attempt = -1
        self._running: set[int] = set()
        self._ends: list[RankEnd] = []

    @property
    def lost(self) -> bool:
        return self.connection.closed or self.connection.silence_s() > self._lost_after_s

    @property
    def running(self) -> bool:
        return bool(self._running)

    def start(self, order: Order) -> None:
        self._attempt, self._running, self._ends = order.attempt, set(order.ranks), []
        self.connection.send(kind="start", order=asdict(order))

    def ended(self) -> list[RankEnd]:
        ends, self._ends = self._ends, []
        return ends

    def stop(self, number: int, grace_s: float) -> None:
        self.connection.send(kind="stop", signal=number, grace_s=grace_s)

    def end(self) -> None:
        if self._running:
            self.stop(signal.SIGKILL, 0.0)

    def dismiss(self, exit_code: int, why: str) -> None:
        self.connection.send(kind="finish", exit_code=exit_code, why=why)

    def take_in(self) -> None:
        """Read what its agent said, and tell it that we live."""
        for message in self.connection.receive():
            if message.get("kind") == "ended" and message.get("attempt") == self._attempt:
                end = RankEnd(rank=int(message["rank"]), code=int(message["code"]))
                self._running.discard(end.rank)
                self._ends.append(end)
            elif message.get("kind") == "interrupt":
                self.interrupts += 1
        self.connection.beat()


class _Candidate:
    """A connection that has not yet proven to be one of ours."""

    def __init__(self, peer: socket.socket) -> None:
        self.connection = Connection(peer)
        self.nonce = secrets.token_hex(16)
        self.since = time.monotonic()
        self.index = -1
        self.name = ""


class Coordinator:
    """Listens at the head's address alone. `own` is the head's own machine, if it runs ranks."""

    def __init__(
        self,
        address: str,
        port: int,
        folder: Path,
        *,
        num_hosts: int,
        own: Host | None,
        lost_after_s: float,
        note: Callable[[str], None],
    ) -> None:
        self.address = address
        self.hosts: list[Host] = [] if own is None else [own]
        self._listener = listen(address, port)
        self._listener.setblocking(False)
        self._folder = folder
        self._token = make_token(folder)
        self._num_hosts = num_hosts
        self._lost_after_s = lost_after_s
        self._note = note
        self._candidates: list[_Candidate] = []
        self._remote: list[RemoteHost] = []
        self._complete = False

    @property
    def interrupts(self) -> int:
        return max((host.interrupts for host in self._remote), default=0)

    def gather(self, within_s: float, interruption: Interruption) -> None:
        """Wait for every machine; EnvironmentLack names those that did not come."""
        deadline = time.monotonic() + within_s
        self._note(f"waiting for {self._num_hosts - len(self.hosts)} machines at {self.address}")
        while len(self.hosts) < self._num_hosts:
            self.pump(0.1)
            self.hosts = [host for host in self.hosts if not host.lost]
            if interruption.count:
                raise KeyboardInterrupt
            if time.monotonic() > deadline:
                here = {host.index for host in self.hosts}
                missing = [str(i) for i in range(self._num_hosts) if i not in here]
                raise EnvironmentLack(
                    f"host {', '.join(missing)} of {self._num_hosts} did not join within "
                    f"{within_s:.0f} s",
                    at=f"{self.address}:{self._listener.getsockname()[1]}",
                    help="start `twofold run` on each with its --host-index and this --head; "
                    "see what it says there",
                )
        self.hosts.sort(key=lambda host: host.index)
        self._complete = True

    def pump(self, timeout_s: float) -> None:
        """Wait for messages at most so long, and take them in."""
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        peers = [host.connection for host in self._remote]
        for connection in peers + [candidate.connection for candidate in self._candidates]:
            if not connection.closed:
                poll.register(connection.socket, select.POLLIN)
        poll.poll(timeout_s * 1e3)
        self._accept()
        for candidate in self._candidates:
            for message in candidate.connection.receive():
                try:
                    self._hear(candidate, message)
                except (KeyError, TypeError, ValueError):
                    candidate.connection.close()
        self._candidates = [c for c in self._candidates if self._is_pending(c)]
        for host in self._remote:
            host.take_in()

    def close(self, exit_code: int, why: str) -> None:
        """Every machine left is told how the run ended, and given time to hear it."""
        for host in self.hosts:
            host.dismiss(exit_code, why)
        deadline = time.monotonic() + _LEAVE_WITHIN_S
        while time.monotonic() < deadline and not all(host.lost for host in self._remote):
            self.pump(0.05)
        for candidate in self._candidates:
            candidate.connection.close()
        for remote in self._remote:
            remote.connection.close()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            self._candidates.append(_Candidate(peer))

    def _hear(self, candidate: _Candidate, message: Message) -> None:
        connection = candidate.connection
        if message.get("kind") == "hello":
            candidate.index, candidate.name = int(message["host"]), str(message["name"])
            connection.send(
                kind="welcome",
                folder=str(self._folder),
                proof=proof(self._token, "head", str(message["nonce"])),
                nonce=candidate.nonce,
                lost_after_s=self._lost_after_s,
            )
        elif proves(message.get("proof"), self._token, "agent", candidate.nonce):
            refusal = self._refusal(candidate.index)
            if refusal is not None:
                connection.send(kind="refused", why=refusal)
                return
            host = RemoteHost(candidate.index, candidate.name, connection, self._lost_after_s)
            self._remote.append(host)
            self.hosts.append(host)
            self._note(f"host {host.index} ({host.name}) joined")
        else:
            connection.close()

    def _refusal(self, index: int) -> str | None:
        if self._complete:
            return "the run is under way: a machine that comes back takes part when it is resumed"
        if not 0 <= index < self._num_hosts:
            return f"host index {index} is not one of 0 to {self._num_hosts - 1}"
        if any(host.index == index and not host.lost for host in self.hosts):
            return f"another machine is host {index} already"
        return None

    def _is_pending(self, candidate: _Candidate) -> bool:
        connection = candidate.connection
        if any(host.connection is connection for host in self._remote):
            return False
        if time.monotonic() - candidate.since > _PROVE_WITHIN_S:
            connection.close()
        return not connection.closed
