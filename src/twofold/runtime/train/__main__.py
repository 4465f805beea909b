"""`python -m twofold.runtime.train run/plan.json ...`: execute plans, each in its own folder.

Several plans are executed in order in one process, so that imports are paid once; each run's
start-up still includes them. Exit codes are Twofold's; an error is one JSON line on stderr.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from twofold.errors import EnvironmentLack, InputError, TwofoldError

if TYPE_CHECKING:
    from twofold.policy.checkpointing import Interval

_IMPORT_START = time.time()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m twofold.runtime.train", description=__doc__)
    parser.add_argument("plans", nargs="+", type=Path)
    parser.add_argument("--evaluate", nargs="*", default=["tune"], choices=["tune", "test"])
    parser.add_argument("--evaluation-tokens", type=int, default=65536)
    parser.add_argument("--checkpoint-every-s", type=_every, default=None)
    parser.add_argument("--max-steps", type=int, default=None)
    arguments = parser.parse_args()
    try:
        _run(arguments)
    except TwofoldError as error:
        _say(
            {
                "error": error.what,
                "at": error.at,
                "help": error.help,
                "exit_code": error.exit_code,
            }
        )
        return error.exit_code
    return 0


def _say(what: dict[str, object]) -> None:
    """One JSON line on stderr. A log on a full disk must not change the exit code."""
    with suppress(OSError):
        print(json.dumps(what), file=sys.stderr, flush=True)


def _every(text: str) -> Interval:
    return "best" if text == "best" else float(text)


def _run(arguments: argparse.Namespace) -> None:
    try:
        import torch
    except ImportError as error:
        raise EnvironmentLack(
            "PyTorch is not installed", help="pip install 'twofold[torch]'"
        ) from error
    from twofold.document import read_plan
    from twofold.runtime.allocator import keep_freed_memory
    from twofold.runtime.train.lock import alone_in
    from twofold.runtime.train.loop import InterruptedRunError, RunOptions, train
    from twofold.runtime.train.stop import request_stop
    from twofold.runtime.train.world import is_first_rank
    from twofold.workload import prepare_corpus

    keep_freed_memory()
    signal.signal(signal.SIGINT, request_stop)
    signal.signal(signal.SIGTERM, request_stop)
    process_start = float(os.environ.get("TWOFOLD_STARTED_AT", _IMPORT_START))
    shared_s = time.time() - process_start
    options = RunOptions(
        evaluate=tuple(arguments.evaluate),
        evaluation_tokens=arguments.evaluation_tokens,
        checkpoint_every_s=arguments.checkpoint_every_s,
        max_steps=arguments.max_steps,
    )
    for path in arguments.plans:
        began = time.time() - shared_s
        document = read_plan(path)
        corpus = prepare_corpus(document.workload.text)
        if document.workload.text_hash not in (None, corpus.text_hash):
            raise InputError(
                f"the text '{document.workload.text}' is not the one the plan was made for",
                at=str(path),
                help="bring back the text, or plan again on the one that is here",
            )
        try:
            with alone_in(path.parent) if is_first_rank() else nullcontext():
                train(document, corpus, path.parent, options, began)
        except InterruptedRunError as stopped:
            _say({"interrupted": str(stopped)})
            sys.exit(130)
        except torch.OutOfMemoryError as error:
            raise EnvironmentLack(
                f"the device is out of memory: {error}",
                at=str(path),
                help="plan again with a smaller micro-batch, or recompute",
            ) from error


if __name__ == "__main__":
    sys.exit(main())
