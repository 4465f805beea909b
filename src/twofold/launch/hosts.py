"""`Host`: a machine that runs ranks. `Team`: the machines of a run. This machine is both."""

from __future__ import annotations

import signal
import socket
import sys
import time
from typing import Protocol

from twofold.launch.network import rank_network
from twofold.launch.ranks import Order, RankEnd, Ranks


class Host(Protocol):
    """`lost`: it is gone, and what ran on it too. `running`: some of its ranks have not ended."""

    index: int
    name: str

    @property
    def lost(self) -> bool: ...

    @property
    def running(self) -> bool: ...

    def start(self, order: Order) -> None: ...

    def ended(self) -> list[RankEnd]: ...

    def stop(self, number: int, grace_s: float) -> None: ...

    def end(self) -> None:
        """Kill what runs, as soon as possible."""

    def dismiss(self, exit_code: int, why: str) -> None:
        """It is not needed any more."""


class Team(Protocol):
    """`address` is the machine that holds the store. `interrupts`: how often one machine asked to
    stop, the most of any: a batch system asks each of them once, and once is no insisting."""

    address: str
    hosts: list[Host]

    @property
    def interrupts(self) -> int: ...

    def pump(self, timeout_s: float) -> None:
        """Wait at most so long for something to happen."""


class ThisHost:
    """The ranks that run here."""

    lost = False

    def __init__(self, index: int, interface: str | None) -> None:
        self.index = index
        self.name = socket.gethostname()
        self._environment = rank_network(interface)
        self._ranks: Ranks | None = None

    @property
    def running(self) -> bool:
        return self._ranks is not None and self._ranks.running

    def start(self, order: Order) -> None:
        self.end()
        self._ranks = Ranks(order, self._environment)

    def ended(self) -> list[RankEnd]:
        return self._ranks.ended() if self._ranks is not None else []

    def stop(self, number: int, grace_s: float) -> None:
        if self._ranks is not None:
            self._ranks.stop(number, grace_s)

    def end(self) -> None:
        if self._ranks is not None:
            self._ranks.stop(signal.SIGKILL, 0.0)
            self._ranks.end()

    def dismiss(self, exit_code: int, why: str) -> None:
        self.end()


class ThisMachine:
    """A team of one."""

    address = "127.0.0.1"
    interrupts = 0

    def __init__(self) -> None:
        self.hosts: list[Host] = [ThisHost(0, "lo" if sys.platform == "linux" else "lo0")]

    def pump(self, timeout_s: float) -> None:
        time.sleep(timeout_s)
