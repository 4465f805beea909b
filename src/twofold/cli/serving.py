"""The verb that serves a plan: on this machine, or as the command for a fleet."""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO, TYPE_CHECKING, Any

import tyro

from twofold.cli.output import answer, say
from twofold.errors import EnvironmentLack, InputError, JobFailed

if TYPE_CHECKING:
    from twofold.launch.process import Process
    from twofold.serving_document import ServingDocument


@dataclass(frozen=True, kw_only=True)
class Serve:
    """Serve a plan over HTTP as OpenAI does, or print the vLLM command for its fleet."""

    plan: tyro.conf.Positional[Path]
    """`serve.json`, the folder of a trained run, or a model's folder."""
    host: str = "127.0.0.1"
    """The address to listen on; 0.0.0.0 is open to the network (see TWOFOLD_API_KEY)."""
    port: int = 8000
    """0: any that is free."""
    max_queue: int | None = None
    """Requests that may wait; more are refused with 429."""
    vllm: bool = False
    """Print the vLLM command, though the plan is for this machine."""
    json: bool = False
    """Print one JSON document: where it listens, or the command's arguments."""

    def execute(self) -> int:
        from twofold.engines.serving import is_local, serving_argv, vllm_command, vllm_flags

        path, document = self._plan()
        if self.vllm or not is_local(document):
            flags = [flag._asdict() for flag in vllm_flags(document)]
            answer({"engine": "vllm", "flags": flags} if self.json else vllm_command(document))
            return 0
        if not 0 <= self.port < 65536:
            raise InputError(f"port {self.port}", at="--port", help="use 0 to 65535")
        if self.max_queue is not None and self.max_queue < 0:
            raise InputError(
                f"{self.max_queue} requests may wait", at="--max-queue", help="use 0 or more"
            )
        argv = serving_argv(path, host=self.host, port=self.port, max_queue=self.max_queue)
        return self._serve(argv, {"OMP_NUM_THREADS": str(document.plan.threads)})

    def _plan(self) -> tuple[Path, ServingDocument]:
        """The plan given, or a plain one for the weights in a folder, written down."""
        from twofold.engines.serving_default import default_document
        from twofold.serving_document import read_serving_plan, write_serving_plan

        if not self.plan.is_dir():
            return self.plan, read_serving_plan(self.plan)
        path = self.plan / "serve.json"
        if path.is_file():
            return path, read_serving_plan(path)
        document = default_document(self.plan)
        if not os.access(self.plan, os.W_OK):
            path = Path("runs") / f"serve-{document.model.name}" / "serve.json"
        write_serving_plan(document, path)
        say(f"a plain plan was written to {path}")
        return path, document

    def _serve(self, argv: tuple[str, ...], environment: dict[str, str]) -> int:
        from twofold.launch.process import start_process

        reading, writing = os.pipe()
        with os.fdopen(reading, encoding="utf-8", errors="replace") as lines:
            with os.fdopen(writing, "wb") as output:
                process = start_process("serve", argv, output=output, environment=environment)
            passed: list[int] = []
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, _passes_to(process, passed))
            error = self._follow(lines)
        code = process.wait()
        if error is not None:
            kinds = {2: InputError, 3: EnvironmentLack}
            kind = kinds.get(code, JobFailed)
            raise kind(str(error["error"]), at=error.get("at"), help=error.get("help"))
        if code < 0 and -code in passed:  # it had not begun to listen for signals
            return 130 if -code == signal.SIGINT else 0
        if code < 0:
            raise JobFailed(
                f"the server was ended by {signal.Signals(-code).name}",
                at=str(self.plan),
                help="if nobody did that, the machine's memory was spent: see the system's log",
            )
        return code

    def _follow(self, lines: IO[str]) -> dict[str, Any] | None:
        """Pass on what the server says; returns its last word where that is an error."""
        error = None
        for line in lines:
            said = _mapping(line)
            if said is None:
                say(line.rstrip("\n"))
            elif "error" in said:
                error = said
            else:
                answer(said if self.json else _listening_text(said))
                sys.stdout.flush()
        return error


def _passes_to(process: Process, passed: list[int]) -> Any:
    """The server drains at the first signal and ends at the second; we follow it."""

    def handle(number: int, frame: FrameType | None) -> None:
        if process.poll() is None:
            passed.append(number)
            process.send_signal(number)

    return handle


def _mapping(line: str) -> dict[str, Any] | None:
    try:
        said = json.loads(line)
    except ValueError:
        return None
    return said if isinstance(said, dict) else None


def _listening_text(said: dict[str, Any]) -> str:
    body = json.dumps({"prompt": "Hello", "max_tokens": 32})
    return (
        f"serving '{said['model']}' at {said['url']}/v1 on {said['device']}, "
        f"{said['max_model_len']} tokens of context; Ctrl-C stops it\n"
        f"next: curl {said['url']}/v1/completions -H 'content-type: application/json' -d '{body}'"
    )
