"""`python -m twofold.runtime.rehearse plan.json 0 17 10239`: a JSON line for each rank named."""

from __future__ import annotations

import json
import os
import sys
import warnings
from pathlib import Path

from twofold.document import read_plan
from twofold.runtime.rehearse.rank import rehearse


def main() -> int:
    """Each rank in a fork of its own: torch remembers the process groups of the one before."""
    document = read_plan(Path(sys.argv[1]))
    warnings.simplefilter("ignore")
    for rank in map(int, sys.argv[2:]):
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            print(json.dumps(rehearse(document, rank)), flush=True)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status != 0:
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
