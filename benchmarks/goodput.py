"""Goodput under kills: what `perf` predicts of a run beside what its ledger measured.

Each repeat trains a small model on two processes, saves every few seconds, and sends SIGKILL to a
random rank at random moments (exponential gaps). From the repository's root:

    python benchmarks/goodput.py --output benchmarks/goodput.json

A prediction is good when its fraction lies within 10 points of the measured one, in every repeat.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from twofold import __version__
from twofold.calibrate import default_overlay_path
from twofold.catalog import read_fleet
from twofold.document import make_document, write_plan
from twofold.host import describe_host
from twofold.measure.goodput import read_goodput
from twofold.model import Model
from twofold.plan import Plan
from twofold.workload import Recipe, Train

SEQ_LEN, GLOBAL_BATCH = 128, 16
CALIBRATION = default_overlay_path()
MODEL = Model(
    name="tiny", layers=4, hidden=128, heads=4, kv_heads=4, ffn=512, vocab=256, max_seq_len=512,
    norm="rmsnorm", activation="relu2", position="rotary", qk_norm=True, bias=False,
    tied_embeddings=False,
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--gap-s", type=float, default=8.0, help="mean training between kills")
    parser.add_argument("--every-s", type=float, default=2.0, help="between checkpoints")
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    rows = []
    for repeat in range(options.repeats):
        row = one_run(repeat, options)
        rows.append(row)
        print(
            f"repeat {repeat}: {row['failures']} kills, measured {row['fraction']:.3f}, "
            f"predicted {row['predicted_fraction']:.3f} "
            f"({100 * (row['predicted_fraction'] - row['fraction']):+.1f} points), "
            f"load {row['load_before']:.1f}"
        )
    if options.output:
        said = {
            "command": {k: v for k, v in vars(options).items() if k != "output"},
            "twofold_version": __version__,
            "date": time.strftime("%Y-%m-%d"),
            "host": describe_host(),
            "runs": rows,
        }
        options.output.write_text(json.dumps(said, indent=1, default=str) + "\n")


def one_run(repeat: int, options: argparse.Namespace) -> dict[str, Any]:
    chance = random.Random(repeat)
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "run"
        write_plan(document(options.steps, seed=repeat), folder / "plan.json")
        command = [sys.executable, "-m", "twofold.cli", "run", str(folder)]
        command += ["--checkpoint-every", f"{options.every_s}s", "--max-restarts", "20"]
        with (Path(name) / "output").open("wb") as output:
            running = subprocess.Popen(command, stdout=output, stderr=output)
            for attempt in range(options.kills):
                if not wait_until_trained(folder, attempt, running):
                    break
                time.sleep(chance.expovariate(1.0 / options.gap_s))
                ranks = processes_of(folder)
                if running.poll() is None and ranks:
                    os.kill(chance.choice(ranks), signal.SIGKILL)
            code = running.wait()
        if code:
            raise SystemExit((Path(name) / "output").read_text())
        return {**read_goodput(folder).as_mapping(), "load_before": load}


def document(steps: int, seed: int) -> Any:
    return make_document(
        model=MODEL,
        workload=Train(
            text="stdlib",
            tokens=steps * GLOBAL_BATCH * SEQ_LEN,
            seq_len=SEQ_LEN,
            recipe=Recipe(learning_rate=2e-3, global_batch=GLOBAL_BATCH),
        ),
        fleet=read_fleet([str(CALIBRATION)]),
        plan=Plan(micro_batch=GLOBAL_BATCH, data_degree=2),
        estimate=None,
        seed=seed,
        twofold_version=__version__,
    )


def wait_until_trained(folder: Path, attempt: int, running: subprocess.Popen[bytes]) -> bool:
    """Until the attempt has ended a step; False where the run is over before."""
    while running.poll() is None:
        started = [e for e in rows_of(folder / "events.jsonl") if e["event"] == "attempt_start"]
        if len(started) > attempt:
            begun = started[attempt]["time"]
            steps = rows_of(folder / "metrics.jsonl")
            if any(row.get("ended_at", 0.0) > begun for row in steps if row["event"] == "step"):
                return True
        time.sleep(0.1)
    return False


def rows_of(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    rows = []
    for line in path.read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows


def processes_of(folder: Path) -> list[int]:
    """The ranks that train in this folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"twofold.runtime.train" in words and os.fsencode(folder / "plan.json") in words:
            found.append(int(path.parent.name))
    return found


if __name__ == "__main__":
    main()
