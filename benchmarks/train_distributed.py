"""Our ranks beside accelerate, the transformers Trainer, Lightning Fabric and DeepSpeed ZeRO.

    python benchmarks/train_distributed.py --peers PYTHON_WITH_THE_PEERS [--rounds 6] [--output F]

Same network code, weights, data, order of data, optimizer, clipping and layout (two data ranks of
one thread each); only the loop, the wrapping and the gradient exchange differ. Interleaved: every
round runs all of them, in an order that turns. Reported: paired ratio of the median step (peer /
ours, above 1 when ours is faster) with its 95 % log-t interval, tokens/s and load. DeepSpeed shards
the optimizer (ZeRO-1), so it is compared with our zero_stage 1, the others with our zero_stage 0.

The peers are installed by whoever runs this, for example
`pip install torch==2.13.0 accelerate transformers lightning-fabric deepspeed numpy pydantic`.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import tempfile
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from twofold import __version__
from twofold.calibrate import default_overlay_path, read_overlay
from twofold.document import PlanDocument, make_document, write_plan
from twofold.evidence.statistics import paired_ratio
from twofold.host import describe_host, observe
from twofold.measure.execution import execute_plan
from twofold.measure.progress import Silent
from twofold.model import Model
from twofold.plan import Plan
from twofold.workload import Recipe, Train, prepare_corpus

HERE = Path(__file__).parent
RANKS, SEQ_LEN, GLOBAL_BATCH = 2, 128, 16
STEPS, WARMUP_STEPS = 40, 8
OURS = {"ours": 0, "ours zero-1": 1}
PEERS = {
    "accelerate": "ours",
    "fabric": "ours",
    "trainer": "ours",
    "deepspeed": "ours zero-1",
}
"""Each peer, and which of our runs has its layout."""
MODEL = Model(
    name="gpt2-3m", layers=4, hidden=256, heads=4, kv_heads=4, ffn=1024, vocab=256,
    max_seq_len=SEQ_LEN,
)  # fmt: skip


class PeerFailed(Exception):
    """A peer's ranks ended with an error; it is given one more chance."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", required=True, help="a Python that has the peers")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--only", nargs="*", choices=list(PEERS), default=list(PEERS))
    parser.add_argument("--output", type=Path, default=None)
    options = parser.parse_args()
    names = [*dict.fromkeys(PEERS[peer] for peer in options.only), *options.only]
    steps_s: dict[str, list[float]] = {name: [] for name in names}
    loads: list[float | None] = []
    failures: list[str] = []
    with tempfile.TemporaryDirectory() as scratch:
        for index in range(options.rounds):
            loads.append(observe().load)
            turn = index % len(names)
            for name in names[turn:] + names[:turn]:
                folder = Path(scratch) / f"{index}-{name.replace(' ', '-')}"
                try:
                    step_s = run(name, folder, options.peers)
                except PeerFailed as failed:
                    failures.append(f"round {index + 1}: {failed}")
                    print(failures[-1], flush=True)
                    step_s = run(name, folder.with_name(folder.name + "-again"), options.peers)
                steps_s[name].append(step_s)
                print(f"round {index + 1}: {name:12} {1e3 * step_s:8.1f} ms a step", flush=True)
    report = {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": describe_host(),
        "layout": f"{RANKS} data ranks of one thread, {GLOBAL_BATCH} x {SEQ_LEN} tokens a step",
        "load_before_rounds": loads,
        "tokens_per_s": {
            name: GLOBAL_BATCH * SEQ_LEN / statistics.median(times)
            for name, times in steps_s.items()
        },
        "step_s": steps_s,
        "failures": [line.splitlines()[0] for line in failures],
        "ratio_peer_over_ours": {
            peer: asdict(
                paired_ratio(
                    [
                        (index, theirs / mine)
                        for index, (theirs, mine) in enumerate(
                            zip(steps_s[peer], steps_s[PEERS[peer]], strict=True)
                        )
                    ]
                )
            )
            for peer in options.only
        },
    }
    print(json.dumps(report["ratio_peer_over_ours"], indent=1))
    if options.output is not None:
        options.output.write_text(json.dumps(report, indent=1) + "\n")


def run(name: str, folder: Path, peers: str) -> float:
    """Median seconds of a step after warm-up."""
    document = plan_document(OURS[PEERS.get(name, name)])
    folder.mkdir(parents=True)
    write_plan(document, folder / "plan.json")
    if name in OURS:
        done = execute_plan(folder, runs=folder, checkpoint_every_s=1e9, progress=Silent())
        return statistics.median(done.run.step_times_s[WARMUP_STEPS:])
    return run_peer(name, folder, peers)


def run_peer(name: str, folder: Path, python: str) -> float:
    out = folder / "steps.jsonl"
    shared = {
        **os.environ,
        "PYTHONPATH": str(HERE.parent / "src"),
        "WORLD_SIZE": str(RANKS),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo",
        "DS_ACCELERATOR": "cpu",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "ACCELERATE_USE_CPU": "true",
    }
    argv = [python, str(HERE / "train_distributed_peer.py"), name]
    argv += [str(folder / "plan.json"), str(out)]
    ranks = []
    for rank in range(RANKS):
        own = {"RANK": str(rank), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(RANKS)}
        with (folder / f"rank-{rank}.log").open("wb") as log:
            ranks.append(
                subprocess.Popen(argv, env=shared | own, stdout=log, stderr=subprocess.STDOUT)
            )
    try:
        codes = [rank.wait(timeout=600) for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    if any(codes):
        raise PeerFailed(f"{name} failed:\n{(folder / 'rank-0.log').read_text()[-3000:]}")
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(rows) == STEPS, f"{name} took {len(rows)} steps"
    return statistics.median(row["step_time_s"] for row in rows[WARMUP_STEPS:])


def plan_document(zero_stage: int) -> PlanDocument:
    recipe = Recipe(learning_rate=6e-4, global_batch=GLOBAL_BATCH)
    plan = Plan(
        data_degree=RANKS,
        micro_batch=GLOBAL_BATCH // RANKS,
        threads=1,
        zero_stage=zero_stage,  # type: ignore[arg-type]
        optimizer_kernel="fused",
    )
    return make_document(
        model=MODEL,
        workload=Train(
            text="stdlib",
            tokens=STEPS * GLOBAL_BATCH * SEQ_LEN,
            seq_len=SEQ_LEN,
            recipe=recipe,
            text_hash=prepare_corpus("stdlib").text_hash,
        ),
        fleet=read_overlay(default_overlay_path()).fleet,
        plan=plan,
        estimate=None,
        seed=1,
        twofold_version=__version__,
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main()
