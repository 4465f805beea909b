"""Local updates beside plain data parallelism over a slow link: wall time to the same loss.

    python benchmarks/local_updates.py [--output FILE.json]

Two hosts (network namespaces, one thread each) train one model over a link of 10 Mbit/s (root).
Three arms a seed, in an order that alternates: gradients summed every step (`plain`); local
updates with an int8 exchange (`local`); and one of the hosts alone with all of the tokens
(`alone`), which needs no link. The target of a seed is the held-out loss of its plain arm after a
number of steps that was fixed beforehand; `local` takes more steps, fixed beforehand too, and has
to end at that loss or below. Times are from the first training data to the last optimizer step,
evaluation apart; ratios are paired, with a t interval on their logarithms.

`--tune` trains on loopback instead, where times mean nothing, and prints losses alone: what the
constants below were chosen by, on other seeds than are measured.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from slow_hosts import FIRST_ADDRESS, PORT, burst_bytes, interface_bytes, run_on, slow_hosts

from twofold import __version__
from twofold.calibrate import default_overlay_path, read_overlay
from twofold.document import make_document, write_plan
from twofold.evidence.statistics import mean_interval, paired_ratio
from twofold.host import describe_host, observe
from twofold.model import Model
from twofold.perf.sockets import FRAMED, Port, all_reduce_s, socket_path
from twofold.plan import Plan
from twofold.policy.exchanges import sent_bytes
from twofold.workload import Recipe, Train

Run = dict[str, Any]

MBIT_PER_S = 10.0
HOSTS = 2
SEEDS = (11, 12, 13)
SEQ_LEN = 64
EVALUATION_TOKENS = 131072
MODEL = Model(
    name="tiny-0.23M", layers=4, hidden=64, heads=4, kv_heads=4, ffn=256, vocab=256,
    max_seq_len=SEQ_LEN, norm="rmsnorm", activation="relu2", position="rotary", qk_norm=True,
    bias=False, tied_embeddings=False,
)  # fmt: skip
RECIPE = Recipe(learning_rate=4e-3, global_batch=32)
AVERAGING = replace(RECIPE, outer_learning_rate=1.0, outer_momentum=0.0)
"""DiLoCo's outer momentum of 0.9 needs more rounds than a run this short has (see TUNED)."""
TUNED = {
    "seed 1, plain, 90 steps": {"rate 2e-3": 2.4699, "rate 4e-3": 2.3570, "rate 8e-3": 2.5766},
    "seed 1, local, 135 steps, H 5": {
        "outer rate 0.7, momentum 0.9": 2.6895,
        "outer rate 0.7, momentum 0.6": 2.3531,
        "outer rate 1, momentum 0": 2.2488,
    },
    "seed 1, local, 180 steps, H 10": {"outer rate 1, momentum 0": 2.1305},
    "seed 1, local, 120 steps, H 10": {"outer rate 1, momentum 0": 2.3077},
    "seed 2": {"plain, 90 steps": 2.3744, "local, 120 steps, H 10": 2.3235},
}
"""Held-out losses on loopback, from which rate, outer step, H and the steps of `local` were chosen
before any seed that is measured was run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    name: str
    steps: int
    plan: Plan
    recipe: Recipe = field(default=RECIPE)


def local_arm(steps: int, recipe: Recipe = RECIPE, **levers: Any) -> Arm:
    plan = replace(PLAIN.plan, exchange_precision="int8", **levers)
    return Arm(name="local", steps=steps, plan=plan, recipe=recipe)


PLAIN = Arm(name="plain", steps=90, plan=Plan(micro_batch=16, data_degree=HOSTS, threads=1))
ALONE = Arm(name="alone", steps=90, plan=Plan(micro_batch=16, threads=1))
LOCAL = local_arm(120, AVERAGING, local_steps=10)
ARMS = (PLAIN, LOCAL, ALONE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=None)
    parser.add_argument("--tune", type=int, nargs="*", default=None, help="seeds; on loopback")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        if options.tune is not None:
            tune(Path(scratch), options.tune)
            return
        report = compare(Path(scratch))
    print(json.dumps({key: report[key] for key in ("speedup", "loss", "times")}, indent=1))
    if options.output is not None:
        options.output.write_text(json.dumps(report, indent=1) + "\n")


def compare(scratch: Path) -> dict[str, Any]:
    runs: list[Run] = []
    load_before = observe().load
    with slow_hosts([MBIT_PER_S] * HOSTS) as hosts:
        for index, seed in enumerate(SEEDS):
            turn = index % len(ARMS)
            for arm in (*ARMS[turn:], *ARMS[:turn]):
                runs.append(train(scratch / f"{seed}-{arm.name}", arm, seed, hosts))
                print(json.dumps(runs[-1]), flush=True)
    by = {(run["arm"], run["seed"]): run for run in runs}

    def ratio(slow: str, fast: str) -> dict[str, Any]:
        pairs = [(s, by[slow, s]["train_s"] / by[fast, s]["train_s"]) for s in SEEDS]
        return asdict(paired_ratio(pairs))

    def difference(arm: str) -> dict[str, Any]:
        each = [by[arm, s]["loss"] - by["plain", s]["loss"] for s in SEEDS]
        return {"each": each, "reached": all(d <= 0 for d in each)} | asdict(mean_interval(each))

    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": describe_host(),
        "load_before": load_before,
        "load_after": observe().load,
        "mbit_per_s": MBIT_PER_S,
        "hosts": HOSTS,
        "model": asdict(MODEL),
        "arms": {arm.name: asdict(arm) for arm in ARMS},
        "tuned": TUNED,
        "speedup": {"local over plain": ratio("plain", "local"),
                    "local over alone": ratio("alone", "local")},
        "loss": {"local - plain": difference("local"), "alone - plain": difference("alone")},
        "times": {arm.name: statistics.median(by[arm.name, s]["train_s"] for s in SEEDS)
                  for arm in ARMS},
        "runs": runs,
    }  # fmt: skip


def train(folder: Path, arm: Arm, seed: int, hosts: Sequence[str]) -> Run:
    """One run; without hosts its ranks meet on loopback."""
    workload = Train(
        text="stdlib",
        tokens=arm.steps * arm.recipe.global_batch * SEQ_LEN,
        seq_len=SEQ_LEN,
        recipe=arm.recipe,
    )
    fleet = read_overlay(default_overlay_path()).fleet
    document = make_document(
        model=MODEL, workload=workload, fleet=fleet, plan=arm.plan, estimate=None, seed=seed,
        twofold_version=__version__,
    )  # fmt: skip
    plan = folder / "plan.json"
    write_plan(document, plan)
    command = [sys.executable, "-m", "twofold.runtime.train", str(plan), "--evaluate", "tune"]
    command += ["--evaluation-tokens", str(EVALUATION_TOKENS)]
    ranks = arm.plan.num_ranks
    shared = {"WORLD_SIZE": str(ranks), "MASTER_PORT": str(PORT)}
    address = FIRST_ADDRESS if hosts else "127.0.0.1"
    environments = [
        shared | {"RANK": str(rank), "LOCAL_RANK": "0", "MASTER_ADDR": address}
        for rank in range(ranks)
    ]
    load, wire_bytes = observe().load, 0
    if hosts:
        names = hosts[:ranks]
        before = interface_bytes(hosts[0])
        run_on(
            dict.fromkeys(names, command),
            environment=dict(zip(names, environments, strict=True)),
            patience_s=400,
        )
        wire_bytes = interface_bytes(hosts[0]) - before
    else:
        on_loopback(command, environments)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    found = {row["event"]: row for row in rows}
    parameters = found["start"]["num_parameters"]
    port = Port(bytes_per_s=MBIT_PER_S * 1e6 / 8, burst_bytes=burst_bytes(MBIT_PER_S))
    exchanged = sent_bytes(parameters, HOSTS, arm.plan.exchange_precision) if ranks > 1 else 0
    exchanges = arm.steps / (arm.plan.local_steps or 1)
    return {
        "arm": arm.name,
        "seed": seed,
        "load": load,
        "parameters": parameters,
        "steps": found["end"]["num_steps"],
        "tokens": found["end"]["tokens"],
        "train_s": found["trained"]["train_s"],
        "step_time_median_s": found["end"]["step_time_median_s"],
        "bytes_an_exchange": exchanged,
        "formula_bytes": exchanges * exchanged * FRAMED,
        "wire_bytes": wire_bytes,
        "predicted_exchange_s": (
            all_reduce_s(exchanged, HOSTS, socket_path(fleet.pools[0].node), [port] * HOSTS)
            if ranks > 1
            else 0.0
        ),
        "loss": found["evaluation"]["loss"],
    }


def on_loopback(command: list[str], environments: list[dict[str, str]]) -> None:
    extra = {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    processes = [subprocess.Popen(command, env=os.environ | extra | own) for own in environments]
    if any(process.wait() for process in processes):
        raise RuntimeError("a rank failed")


def tune(scratch: Path, seeds: Sequence[int]) -> None:
    """Losses of candidates; plain first, tuned as hard."""
    plain = [replace(PLAIN, recipe=replace(RECIPE, learning_rate=r)) for r in (2e-3, 4e-3, 8e-3)]
    gentle = replace(RECIPE, outer_momentum=0.6)
    local = [local_arm(135, recipe, local_steps=5) for recipe in (RECIPE, gentle, AVERAGING)]
    candidates = [*plain, *local, local_arm(180, AVERAGING, local_steps=10), LOCAL]
    for seed in seeds:
        for index, arm in enumerate(candidates):
            run = train(scratch / f"{seed}-{index}", arm, seed, ())
            levers = (arm.plan.local_steps, arm.plan.exchange_fragments)
            outer = (arm.recipe.outer_learning_rate, arm.recipe.outer_momentum)
            told = f"{arm.name} {arm.steps} steps, rate {arm.recipe.learning_rate}, H F {levers}, "
            print(f"seed {seed}: {told}outer {outer}: {run['loss']:.4f}", flush=True)


if __name__ == "__main__":
    main()
