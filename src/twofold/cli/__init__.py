"""The verbs. The only place that prints and sets exit codes.

stdout carries the answer, stderr progress and messages; `--json` prints one JSON document.
Everything heavy is imported inside the verb that needs it.
"""

from twofold.cli.entry import main

__all__ = ["main"]
