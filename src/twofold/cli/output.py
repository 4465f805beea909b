"""What the verbs print: the answer on stdout, progress and messages on stderr."""

from __future__ import annotations

import json
import os
import shutil
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from twofold.report.watch import Watcher

EXIT_NO = 1


def answer(value: Any) -> None:
    """A text, or one JSON document of anything else."""
    print(value if isinstance(value, str) else json.dumps(value, indent=1, allow_nan=False))


def say(text: str) -> None:
    print(text, file=sys.stderr)


def text_width() -> int | None:
    """Characters in a line: what `COLUMNS` says, else the terminal's; None where the answer goes to
    a file or a pipe, which has room for all."""
    if os.environ.get("COLUMNS", "").isdigit():
        return int(os.environ["COLUMNS"])
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def watcher() -> Watcher:
    from twofold.report.watch import Watcher

    return Watcher(sys.stderr)
