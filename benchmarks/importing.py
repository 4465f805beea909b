"""Import twenty-six architectures of torchvision and transformers without weights, and compare
parameters and FLOP with the counts that torchvision publishes.

    python benchmarks/importing.py [--write benchmarks/importing_MACHINE_DATE.json]

torchvision's pages state giga multiply-adds of one picture of 224 x 224: two FLOP each. Language
models read 128 tokens.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.sources.networks.zoo import LANGUAGE, PUBLISHED, _torchvision

from twofold.errors import TwofoldError
from twofold.model import forward_flop, num_parameters, operator_table
from twofold.sources.coverage import Imported
from twofold.sources.named import import_model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", type=Path)
    target = parser.parse_args().write
    rows = []
    for name in [*PUBLISHED, *LANGUAGE]:
        started = time.perf_counter()
        try:
            found = import_model(f"torch:tests.sources.networks.zoo:{name}")
        except TwofoldError as error:
            rows.append({"model": name, "failed": str(error)})
        else:
            rows.append(_row(name, found, time.perf_counter() - started))
        print(json.dumps(rows[-1]), flush=True)
    if target is not None:
        packages = {name: version(name) for name in ("torch", "torchvision", "transformers")}
        target.write_text(json.dumps({"packages": packages, "rows": rows}, indent=1) + "\n")


def _row(name: str, found: Imported, seconds: float) -> dict[str, Any]:
    model = found.model
    seq = 1 if model.operators else 128
    gflop = sum(r.repeat * forward_flop(r, seq, seq) for r in operator_table(model)) / 1e9
    count = num_parameters(model) + found.unused_parameters
    row: dict[str, Any] = {
        "model": name,
        "import_s": round(seconds, 2),
        "family": found.family,
        "why_chain": found.why_chain,
        "layers": model.layers,
        "parameters": count,
        "forward_gflop": gflop,
        "unrecognised_flop_fraction": found.unrecognised_flop_fraction,
        "unrecognised_bytes_fraction": found.unrecognised_bytes_fraction,
        "unrecognised": [asdict(one) for one in found.unrecognised],
    }
    if name in PUBLISHED:
        parameters, published = _published(name)
        row["published_parameters"], row["published_gflop"] = parameters, published
        row["gflop_off"] = gflop / published - 1
    return row


def _published(name: str) -> tuple[int, float]:
    meta = _torchvision().models.get_weight(PUBLISHED[name]).meta
    return meta["num_params"], 2 * meta["_ops"]


if __name__ == "__main__":
    main()
