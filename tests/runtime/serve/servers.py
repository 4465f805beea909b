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


@contextmanager
def serving(
    document: ServingDocument, folder: Path, *options: str, api_key: str = ""
) -> Iterator[Running]:
    path = folder / "serve.json"
    write_serving_plan(document, path)
    process = subprocess.Popen(
        [sys.executable, "-m", "twofold.runtime.serve", str(path), "--port", "0", *options],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TWOFOLD_API_KEY": api_key, "OMP_NUM_THREADS": "1"},
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
