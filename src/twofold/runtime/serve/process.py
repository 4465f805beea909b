"""The engine's process: load, then step while there is work and sleep while there is none."""

from __future__ import annotations

import signal
import threading
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING

from twofold.errors import TwofoldError
from twofold.runtime.serve.messages import Cancel, Failed, Failure, Ready, Request, Stepped

if TYPE_CHECKING:
    from twofold.runtime.serve.engine import Engine

Command = Request | Cancel | None
"""None: the front has gone."""


def run_engine(path: Path, connection: Connection, step_log: Path | None = None) -> None:
    """Until the front hangs up. What goes wrong is told to it; steps are written to `step_log`."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    try:
        _serve(path, connection, step_log)
    except (BrokenPipeError, ConnectionResetError):
        return
    except TwofoldError as error:
        connection.send(
            Failed(what=error.what, at=error.at, help=error.help, exit_code=error.exit_code)
        )
    except Exception as error:
        traceback.print_exc()
        connection.send(
            Failed(
                what=f"the engine failed: {error!r}", help="please report it, with the lines above"
            )
        )


def _serve(path: Path, connection: Connection, step_log: Path | None) -> None:
    from torch import OutOfMemoryError

    from twofold.runtime.serve.assembly import make_engine
    from twofold.runtime.serve.loading import refuse_out_of_memory
    from twofold.runtime.serve.step_log import StepLog, opened
    from twofold.serving_document import read_serving_plan

    try:
        engine = make_engine(read_serving_plan(path))
        connection.send(
            Ready(
                num_blocks=engine.scheduler.limits.num_blocks,
                device=str(engine.cache.keys.device),
            )
        )
        commands = _listen(connection)
        with opened(step_log) as file:
            log = StepLog(file)
            while True:
                while engine.is_idle or not commands.empty():
                    command = commands.get()
                    if command is None:
                        return
                    if isinstance(command, Cancel):
                        engine.cancel(command.id)
                        if engine.is_idle:
                            log.rest()
                            connection.send(Stepped([], engine.counts()))
                    elif (failure := _add(engine, command)) is not None:
                        connection.send(Stepped([], engine.counts(), (failure,)))
                    else:
                        log.begin()
                stepped, work = engine.step()
                connection.send(stepped)
                log.end(work, rests=engine.is_idle)
    except OutOfMemoryError as error:
        raise refuse_out_of_memory(error) from error


def _add(engine: Engine, request: Request) -> Failure | None:
    """Why the engine cannot take it."""
    from twofold.runtime.serve.engine import failure_of

    try:
        engine.add(request)
    except Exception as error:
        return failure_of(request.id, error)
    return None


def _listen(connection: Connection) -> SimpleQueue[Command]:
    """Commands are taken off the pipe at all times, so that the front never waits to send one."""
    commands: SimpleQueue[Command] = SimpleQueue()

    def read() -> None:
        try:
            while True:
                commands.put(connection.recv())
        except (EOFError, OSError):
            commands.put(None)

    threading.Thread(target=read, name="commands", daemon=True).start()
    return commands
