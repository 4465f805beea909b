"""A stand-in for training, for tests: real ranks, one gloo all-reduce a step, exact arithmetic.

The state is one whole number, into which every sample of every step is folded exactly once, so
that a lost or repeated sample changes all that follows, and the number of ranks changes nothing.
Usage: python worker.py FOLDER --steps N [--fail ...]
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from pathlib import Path

_MODULUS = 2**31 - 1


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--step-s", type=float, default=0.02)
    parser.add_argument("--checkpoint-every", type=int, default=5)
    parser.add_argument("--global-batch", type=int, default=12)
    parser.add_argument("--fail", choices=["crash", "error", "hang"], default=None)
    arguments = parser.parse_args()
    stop: list[int] = []
    signal.signal(signal.SIGINT, lambda *_: stop.append(1))
    signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
    rank, ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if rank == ranks - 1 and arguments.fail == "crash":
        raise RuntimeError("planted crash")
    if rank == ranks - 1 and arguments.fail == "error":
        print(json.dumps({"error": "planted", "at": "here", "help": "no", "exit_code": 2}))
        return 2
    import torch
    import torch.distributed as dist

    assert os.environ["TWOFOLD_STORE"] == "hosted"
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = dist.TCPStore(address, port, ranks, is_master=False)
    prefix = dist.PrefixStore(f"attempt-{os.environ['TWOFOLD_ATTEMPT']}", store)
    dist.init_process_group("gloo", store=prefix, rank=rank, world_size=ranks)
    checkpoints, metrics = arguments.folder / "checkpoints", arguments.folder / "metrics.jsonl"
    state, first = _load(checkpoints)
    if rank == 0:
        _trim(metrics, first)
    for step in range(first, arguments.steps):
        samples = range(step * arguments.global_batch, (step + 1) * arguments.global_batch)
        mine = sum((7919 * i * i + 104729) % _MODULUS for i in samples[rank::ranks])
        flags = torch.tensor([mine, len(stop)])
        dist.all_reduce(flags)
        state = (48271 * state + int(flags[0])) % _MODULUS
        time.sleep(arguments.step_s)
        if rank == 0:
            row = {"event": "step", "step": step + 1, "loss": state / _MODULUS}
            with metrics.open("a") as stream:
                stream.write(json.dumps(row) + "\n")
        stopped = int(flags[1]) > 0
        if stopped or (step + 1) % arguments.checkpoint_every == 0:
            dist.barrier()
            if rank == 0:
                _save(checkpoints, step + 1, state)
        if stopped:
            return 130
        while arguments.fail == "hang" and step == 3:
            time.sleep(1)
    dist.destroy_process_group()
    return 0


def _load(checkpoints: Path) -> tuple[int, int]:
    found = sorted(checkpoints.glob("step-*"))
    if not found:
        return 1, 0
    return int((found[-1] / "state").read_text()), int(found[-1].name.removeprefix("step-"))


def _save(checkpoints: Path, step: int, state: int) -> None:
    scratch = checkpoints / f".step-{step:08d}"
    scratch.mkdir(parents=True, exist_ok=True)
    (scratch / "state").write_text(str(state))
    scratch.rename(checkpoints / f"step-{step:08d}")


def _trim(metrics: Path, first: int) -> None:
    rows = metrics.read_text().splitlines() if metrics.exists() else []
    kept = [row for row in rows if json.loads(row)["step"] <= first]
    metrics.write_text("".join(row + "\n" for row in kept))


if __name__ == "__main__":
    sys.exit(main())
