"""The front's end of the pipe: requests go to the engine's process, tokens come back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from itertools import count
from multiprocessing import get_context
from pathlib import Path

from twofold.errors import InputError, JobFailed, TwofoldError
from twofold.runtime.serve.messages import (
    Cancel,
    Counts,
    Failed,
    Failure,
    Ready,
    Request,
    Stepped,
    Token,
)
from twofold.runtime.serve.process import run_engine

Answer = asyncio.Queue[Token | Failure | Failed]


class EngineGone(Exception):
    """The engine's process ended while an answer was under way."""


class AnswerFailed(Exception):
    """The engine ended this answer alone, for the reason given."""


class EngineClient:
    """Starts the engine's process and shares it among the coroutines of one event loop."""

    def __init__(
        self, path: Path, *, on_step: Callable[[Counts], None], step_log: Path | None = None
    ) -> None:
        self._on_step = on_step
        self.on_end: Callable[[], object] | None = None
        """Called when the process ends by itself."""
        self._answers: dict[int, Answer] = {}
        self._ids = count()
        self._failed: Failed | None = None
        context = get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(
            target=run_engine, args=(path, theirs, step_log), name="engine"
        )
        self._process.start()
        theirs.close()
        loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[Ready] = loop.create_future()
        loop.add_reader(self._connection.fileno(), self._read)

    async def ready(self) -> Ready:
        """Wait until it is loaded. Raises what it says went wrong."""
        return await self._ready

    @property
    def num_open(self) -> int:
        """Requests that have not ended."""
        return len(self._answers)

    @property
    def failed(self) -> Failed | None:
        """Why the engine ended by itself."""
        return self._failed

    def new_id(self) -> int:
        return next(self._ids)

    async def tokens(self, requests: Sequence[Request]) -> AsyncGenerator[Token]:
        """Of all of them, as they come. Whoever stops listening cancels what is left."""
        answer: Answer = asyncio.Queue()
        if self._failed is not None:
            raise EngineGone
        for request in requests:
            self._answers[request.id] = answer
            self._send(request)
        try:
            while any(request.id in self._answers for request in requests):
                token = await answer.get()
                if isinstance(token, Failed):
                    raise EngineGone
                if token.id not in self._answers:
                    continue  # it was cancelled, and this one was under way
                if isinstance(token, Failure):
                    self._answers.pop(token.id)
                    raise AnswerFailed(token.what)
                if token.finish is not None:
                    self._answers.pop(token.id, None)
                yield token
        finally:
            for request in requests:
                self.cancel(request.id)

    def cancel(self, id: int) -> None:
        """Nothing happens where it has ended."""
        if self._answers.pop(id, None) is not None:
            self._send(Cancel(id))

    def close(self) -> None:
        """Hang up, which ends the process; one that still loads does not hear it."""
        if not self._ready.done() or self._ready.cancelled():
            self._process.kill()
        if self._failed is None:
            asyncio.get_running_loop().remove_reader(self._connection.fileno())
        self._connection.close()
        self._process.join(timeout=_GRACE_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def _send(self, command: Request | Cancel) -> None:
        try:
            self._connection.send(command)
        except OSError:
            self._end(self._gone())

    def _read(self) -> None:
        """All that has come. Called by the event loop."""
        while self._failed is None and self._connection.poll():
            message = self._receive()
            if isinstance(message, Failed):
                self._end(message)
                return
            if isinstance(message, Ready):
                self._ready.set_result(message)
                continue
            assert isinstance(message, Stepped)
            news: list[Token | Failure] = [*message.tokens, *message.failures]
            for told in news:
                answer = self._answers.get(told.id)
                if answer is not None:
                    answer.put_nowait(told)
            self._on_step(message.counts)

    def _receive(self) -> object:
        try:
            return self._connection.recv()
        except (EOFError, OSError):
            return self._gone()

    def _gone(self) -> Failed:
        self._process.join(timeout=1.0)
        return Failed(
            what=f"the engine's process ended with code {self._process.exitcode}",
            help="a code of -9 often means that the machine's memory was spent",
        )

    def _end(self, failed: Failed) -> None:
        if self._failed is not None:
            return
        self._failed = failed
        asyncio.get_running_loop().remove_reader(self._connection.fileno())
        if not self._ready.done():
            self._ready.set_exception(as_error(failed))
        for answer in {id(a): a for a in self._answers.values()}.values():
            answer.put_nowait(failed)
        if self.on_end is not None:
            self.on_end()


_GRACE_S = 10.0


def as_error(failed: Failed) -> TwofoldError:
    """What the engine's process raised, to be raised here."""
    kinds: dict[int, type[TwofoldError]] = {2: InputError}
    return kinds.get(failed.exit_code, JobFailed)(failed.what, at=failed.at, help=failed.help)
