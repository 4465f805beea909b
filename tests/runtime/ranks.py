"""Real ranks of the real runtime, and what they leave behind."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

from tests.fleets import plain_fleet
from twofold.document import make_document, write_plan
from twofold.model import Model
from twofold.plan import Plan
from twofold.workload import Recipe, Train

SEQ_LEN = 32
RECIPE = Recipe(learning_rate=2e-3, global_batch=12)
MODEL = Model(
    name="tiny", layers=4, hidden=32, heads=4, kv_heads=4, ffn=64, vocab=256, max_seq_len=64,
    norm="rmsnorm", activation="relu2", position="rotary", qk_norm=True, bias=False,
    tied_embeddings=False,
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """Per-step losses and gradient norms, and the weights after the last step by name."""

    losses: list[float]
    gradient_norms: list[float]
    weights: dict[str, torch.Tensor]
    rows: list[dict[str, Any]]

    def differs_from(self, other: Trained) -> tuple[float, float, float]:
        """Largest differences: of losses, of gradient norms (relative), of weights."""
        losses = max(abs(a - b) for a, b in zip(self.losses, other.losses, strict=True))
        norms = max(
            abs(a / b - 1) for a, b in zip(self.gradient_norms, other.gradient_norms, strict=True)
        )
        assert self.weights.keys() == other.weights.keys()
        weights = max(
            float((self.weights[name] - value).abs().max()) for name, value in other.weights.items()
        )
        return losses, norms, weights


def train_ranks(
    folder: Path,
    text: str,
    *,
    model: Model = MODEL,
    recipe: Recipe = RECIPE,
    steps: int = 20,
    plan: dict[str, Any] | None = None,
    environment: dict[str, str] | None = None,
    options: tuple[str, ...] = (),
) -> Trained:
    """Write the plan, start its ranks, and read what they trained."""
    document = make_document(
        model=model,
        workload=Train(
            text=text,
            tokens=steps * recipe.global_batch * SEQ_LEN,
            seq_len=SEQ_LEN,
            recipe=recipe,
        ),
        fleet=plain_fleet(),
        plan=Plan(**({"micro_batch": recipe.global_batch, "threads": 1} | (plan or {}))),
        estimate=None,
        seed=7,
        twofold_version="test",
    )
    path = folder / "plan.json"
    write_plan(document, path)
    start_ranks(path, document.plan.num_ranks, environment=environment, options=options)
    return read_trained(folder)


def start_ranks(
    path: Path,
    ranks: int,
    *,
    environment: dict[str, str] | None = None,
    options: tuple[str, ...] = (),
) -> None:
    """Run every rank to its end; the first that fails fails the test with its output."""
    shared = {
        "WORLD_SIZE": str(ranks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo",
    }
    argv = [sys.executable, "-m", "twofold.runtime.train", str(path), "--evaluate", "tune"]
    argv += ["--evaluation-tokens", "2048", "--checkpoint-every-s", "1e6", *options]
    processes = []
    for rank in range(ranks):
        log = (path.parent / f"rank-{rank}.log").open("wb")
        own = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        processes.append(
            subprocess.Popen(
                argv,
                env={**os.environ, **shared, **own, **(environment or {})},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        )
        log.close()
    try:
        codes = [process.wait(timeout=240) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    if any(codes):
        logs = [(path.parent / f"rank-{rank}.log").read_text()[-3000:] for rank in range(ranks)]
        raise AssertionError(f"ranks ended with {codes}:\n" + "\n".join(logs))


def read_trained(folder: Path) -> Trained:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    steps = [row for row in rows if row["event"] == "step"]
    newest = sorted((folder / "checkpoints").glob("step-*"))[-1]
    whole = folder / "whole.pt"
    dcp_to_torch_save(newest, whole)
    state = torch.load(whole, weights_only=True)
    return Trained(
        losses=[row["loss"] for row in steps],
        gradient_norms=[row["gradient_norm"] for row in steps],
        weights=state["network"],
        rows=rows,
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
