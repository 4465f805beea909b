"""`python -m twofold.runtime.rehearse plan.json 0 17 10239`: a JSON line for each rank named."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import warnings
from pathlib import Path

from twofold.document import read_plan
from twofold.runtime.rehearse.rank import rehearse


def main() -> int:
    """Each rank in a fork of its own: torch remembers the process groups of the one before."""
    document = read_plan(Path(sys.argv[1]))
    warnings.simplefilter("ignore")
    waiting = list(map(int, sys.argv[2:]))
    running: dict[int, Path] = {}
    with tempfile.TemporaryDirectory() as folder:
        while waiting or running:
            if waiting and len(running) < (os.cpu_count() or 1):
                rank = waiting.pop(0)
                told = Path(folder) / f"{rank}.json"
                child = os.fork()
                if child == 0:
                    told.write_text(json.dumps(rehearse(document, rank)))
                    os._exit(0)
                running[child] = told
                continue
            child, status = os.wait()
            if status != 0:
                return 1
            print(running.pop(child).read_text(), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
