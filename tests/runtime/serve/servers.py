"""A server as a user starts it: a process, and the port it says."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from twofold.serving_document import ServingDocument, write_serving_plan


@dataclass(frozen=True, slots=True)
class Running:
    url: str
    process: subprocess.Popen[str]

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(timeout=60)


def environment(api_key: str | None = None) -> dict[str, str]:
    ours = {name: value for name, value in os.environ.items() if name != "TWOFOLD_API_KEY"}
    key = {} if api_key is None else {"TWOFOLD_API_KEY": api_key}
    return {**ours, **key, "OMP_NUM_THREADS": "1"}


def start(
    folder: Path, document: ServingDocument, *options: str, api_key: str | None = None
) -> subprocess.Popen[str]:
    path = folder / "serve.json"
    write_serving_plan(document, path)
    return subprocess.Popen(
        [sys.executable, "-m", "twofold.runtime.serve", str(path), "--port", "0", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(api_key),
    )


def start_in_vain(
    folder: Path, document: ServingDocument, *options: str, api_key: str | None = None
) -> subprocess.CompletedProcess[str]:
    """One that ends by itself, and what it said."""
    process = start(folder, document, *options, api_key=api_key)
    out, errors = process.communicate(timeout=60)
    return subprocess.CompletedProcess(process.args, process.returncode, out, errors)


@contextmanager
def serving(
    document: ServingDocument, folder: Path, *options: str, api_key: str | None = None
) -> Iterator[Running]:
    path = folder / "serve.json"
    write_serving_plan(document, path)
    process = subprocess.Popen(
        [sys.executable, "-m", "twofold.runtime.serve", str(path), "--port", "0", *options],
        stdout=subprocess.PIPE,
        text=True,
        env=environment(api_key),
    )
    try:
        assert process.stdout is not None
        said = json.loads(process.stdout.readline())
        yield Running(said["url"], process)
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
