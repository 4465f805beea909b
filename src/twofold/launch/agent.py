"""A machine of a run other than the head: runs the ranks it is told to, while the head lives."""

from __future__ import annotations

import json
import secrets
import select
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twofold.errors import EnvironmentLack, InputError, JobFailed, TwofoldError
from twofold.launch.hosts import ThisHost
from twofold.launch.interruption import Interruption
from twofold.launch.job import rank_log
from twofold.launch.network import interface_of
from twofold.launch.ranks import Order
from twofold.launch.wire import Connection, Message, proof, proves, read_token

_POLL_S = 0.05
_ANSWER_WITHIN_S = 30.0
_EARLIER = 2 / 3
"""We stop our ranks after this part of the silence after which the head counts us lost: so they
have ended before others go on without them, also where only the link is cut."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dismissal:
    """How the run ended, as the head says."""

    folder: Path
    exit_code: int
    why: str


def serve_head(
    host_index: int,
    head: tuple[str, int],
    *,
    interface: str | None,
    join_within_s: float,
    note: Callable[[str], None],
) -> Dismissal:
    """Take part in a run until the head dismisses us. JobFailed when the head is gone."""
    with Interruption() as interruption:
        connection = _connect(head, join_within_s, interruption, note)
        folder, lost_after_s = _join(connection, host_index, interruption)
        note(f"host {host_index} takes part in {folder}")
        own = connection.socket.getsockname()[0]
        host = ThisHost(host_index, interface or interface_of(own))
        try:
            return _serve(connection, host, folder, lost_after_s * _EARLIER, interruption)
        finally:
            host.end()
            connection.close()


def _serve(
    connection: Connection,
    host: ThisHost,
    folder: Path,
    give_up_after_s: float,
    interruption: Interruption,
) -> Dismissal:
    attempt, told = -1, 0
    while True:
        for message in _wait(connection, _POLL_S):
            kind = message.get("kind")
            if kind == "finish":
                return Dismissal(
                    folder=folder, exit_code=int(message["exit_code"]), why=str(message["why"])
                )
            if kind == "start":
                order = _order(message["order"])
                attempt = order.attempt
                _start(connection, host, order)
            elif kind == "refused":
                raise InputError(str(message["why"]), at="--host-index")
            elif kind == "stop":
                host.stop(int(message["signal"]), float(message["grace_s"]))
        for end in host.ended():
            connection.send(kind="ended", attempt=attempt, rank=end.rank, code=end.code)
        while told < interruption.count:
            connection.send(kind="interrupt")
            told += 1
        connection.beat()
        if connection.closed or connection.silence_s() > give_up_after_s:
            raise JobFailed(
                "the head of the run is gone"
                if connection.closed
                else f"nothing was heard of the head for {give_up_after_s:.0f} s",
                at=str(folder),
                help="start it again on every machine with this folder for the plan: it goes on "
                "from the newest checkpoint",
            )


def _start(connection: Connection, host: ThisHost, order: Order) -> None:
    """What keeps this machine from starting its ranks is told as they would tell it."""
    try:
        host.start(order)
    except TwofoldError as error:
        for rank in order.ranks:
            _say_in_log(Path(order.folder), rank, error)
            connection.send(kind="ended", attempt=order.attempt, rank=rank, code=error.exit_code)


def _say_in_log(folder: Path, rank: int, error: TwofoldError) -> None:
    said = {"error": error.what, "at": error.at, "help": error.help, "exit_code": error.exit_code}
    with suppress(OSError), rank_log(folder, rank).open("a", encoding="utf-8") as log:
        log.write(json.dumps(said) + "\n")


def _connect(
    head: tuple[str, int],
    within_s: float,
    interruption: Interruption,
    note: Callable[[str], None],
) -> Connection:
    """The head may start later than we do."""
    deadline = time.monotonic() + within_s
    said = False
    while True:
        try:
            return Connection(socket.create_connection(head, timeout=5.0))
        except OSError as error:
            if time.monotonic() > deadline:
                raise EnvironmentLack(
                    f"the head does not answer: {error.strerror or error}",
                    at=f"{head[0]}:{head[1]}",
                    help="start `twofold run` with --host-index 0 there, and check that this "
                    "machine may connect to it",
                ) from error
        if interruption.count:
            raise KeyboardInterrupt
        if not said:
            note(f"waiting for the head at {head[0]}:{head[1]}")
            said = True
        time.sleep(0.2)


def _join(
    connection: Connection, host_index: int, interruption: Interruption
) -> tuple[Path, float]:
    """Prove who we are, and that the head is who it says: (run folder, silence allowed)."""
    nonce = secrets.token_hex(16)
    connection.send(kind="hello", host=host_index, name=socket.gethostname(), nonce=nonce)
    welcome = _await_welcome(connection, interruption)
    folder = Path(str(welcome.get("folder")))
    token = read_token(folder) if welcome else ""
    if not welcome or not proves(welcome.get("proof"), token, "head", nonce):
        raise EnvironmentLack(
            "what answers there is not the head of a run of ours",
            at="--head",
            help="check address and port; all machines must run the same version of Twofold",
        )
    connection.send(kind="proof", proof=proof(token, "agent", str(welcome["nonce"])))
    return folder, float(welcome["lost_after_s"])


def _await_welcome(connection: Connection, interruption: Interruption) -> Message:
    """Empty where none comes."""
    deadline = time.monotonic() + _ANSWER_WITHIN_S
    while time.monotonic() < deadline and not connection.closed:
        for message in _wait(connection, 0.2):
            if message.get("kind") == "welcome":
                return message
        if interruption.count:
            raise KeyboardInterrupt
    return {}


def _wait(connection: Connection, timeout_s: float) -> list[Message]:
    if connection.closed:
        return []
    select.select([connection.socket], [], [], timeout_s)
    return connection.receive()


def _order(fields: dict[str, Any]) -> Order:
    return Order(
        name=str(fields["name"]),
        attempt=int(fields["attempt"]),
        arguments=tuple(map(str, fields["arguments"])),
        environment={str(k): str(v) for k, v in fields["environment"].items()},
        folder=str(fields["folder"]),
        working_folder=fields["working_folder"],
        ranks=tuple(map(int, fields["ranks"])),
        num_ranks=int(fields["num_ranks"]),
        cpu_cores=tuple(fields["cpu_cores"]),
    )
