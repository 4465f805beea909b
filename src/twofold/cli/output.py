"""What the verbs print: the answer on stdout, progress and messages on stderr."""

from __future__ import annotations

import json
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


def watcher() -> Watcher:
    from twofold.report.watch import Watcher

    return Watcher(sys.stderr)
