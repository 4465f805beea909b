"""`python -m twofold.runtime.serve serve.json`: serve a plan over HTTP.

When it listens it says so in one JSON line on stdout. SIGTERM lets open answers end and exits
with 0, Ctrl-C with 130; a second signal does not wait. An error is one JSON line on stderr. The
API key, where one is to be required, is read from TWOFOLD_API_KEY.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from contextlib import suppress
from pathlib import Path

from twofold.errors import EnvironmentLack, InputError, TwofoldError

MAX_QUEUE = 1024


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m twofold.runtime.serve", description=__doc__)
    parser.add_argument("plan", type=Path)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000, help="0: any free one")
    parser.add_argument("--max-queue", type=_count, default=MAX_QUEUE, help="then 429")
    parser.add_argument("--step-log", type=Path, help="a JSON line for every step goes here")
    arguments = parser.parse_args()
    try:
        return _run(arguments)
    except TwofoldError as error:
        said = {"error": error.what, "at": error.at, "help": error.help}
        with suppress(OSError):
            line = json.dumps({**said, "exit_code": error.exit_code})
            print(line, file=sys.stderr, flush=True)
        return error.exit_code
    except KeyboardInterrupt:
        return 130


def _count(word: str) -> int:
    if not word.isdigit():
        raise argparse.ArgumentTypeError(f"'{word}' is not 0 or more requests")
    return int(word)


def _api_key() -> str | None:
    """None where none is to be required. An empty one is a mistake, such as a file that was not
    found: a server meant to be closed would be open."""
    key = os.environ.get("TWOFOLD_API_KEY")
    if key is not None and not key.strip():
        raise InputError(
            "the API key is empty",
            at="TWOFOLD_API_KEY",
            help="put a key into it, or unset it to serve whoever can reach the port",
        )
    return key


def _run(arguments: argparse.Namespace) -> int:
    api_key = _api_key()
    try:
        from twofold.runtime.serve.server import serve
    except ImportError as error:
        raise EnvironmentLack(
            f"a package for serving is not installed: {error}", help="pip install 'twofold[serve]'"
        ) from error
    return asyncio.run(
        serve(
            arguments.plan,
            host=arguments.host,
            port=arguments.port,
            max_queue=arguments.max_queue,
            api_key=api_key,
            step_log=arguments.step_log,
        )
    )


if __name__ == "__main__":
    sys.exit(main())
