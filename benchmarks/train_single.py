"""Our training loop beside nanoGPT's: same model, precision, batch and data, interleaved.

    python benchmarks/train_single.py --peer PATH_TO_NANOGPT [--pairs 6] [--output FILE.json]

The peer is fetched by whoever runs this (github.com/karpathy/nanoGPT); its files are copied to a
scratch folder and run unchanged. Reported: paired ratio of the median step (peer / ours, above 1
when ours is faster) with its 95 % log-t interval, absolute times, load, and our MFU against the
calibrated roof. Both run their framework's defaults: fp32, fused attention, loop AdamW, all cores.
"""

from __future__ import annotations

import argparse
import json
import pickle
import shutil
import statistics
import sys
import tempfile
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from twofold import __version__
from twofold.calibrate import default_overlay_path, read_overlay
from twofold.document import make_document
from twofold.engines import Command, command_job, embedded_job, read_command_run, read_run
from twofold.evidence.statistics import paired_ratio
from twofold.host import describe_host, observe
from twofold.launch import run_job
from twofold.measure.finals import default_plan
from twofold.model import Model, training_flop_per_token
from twofold.workload import Recipe, Train, prepare_corpus

SIZES = {
    "0.8M": {"layers": 4, "hidden": 128, "heads": 4, "seq": 128, "batch": 8, "steps": 60},
    "4.9M": {"layers": 6, "hidden": 256, "heads": 4, "seq": 256, "batch": 4, "steps": 20},
}
WARMUP_STEPS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", type=Path, required=True)
    parser.add_argument("--pairs", type=int, default=6)
    parser.add_argument("--output", type=Path, default=None)
    options = parser.parse_args()
    results = {}
    with tempfile.TemporaryDirectory() as scratch:
        peer = prepare_peer(options.peer, Path(scratch))
        for name, size in SIZES.items():
            results[name] = compare(peer, Path(scratch), name, size, options.pairs)
            print(json.dumps({name: results[name]}, indent=1))
    report = {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": describe_host(),
        "results": results,
    }
    if options.output is not None:
        options.output.write_text(json.dumps(report, indent=1) + "\n")


def prepare_peer(source: Path, scratch: Path) -> Path:
    """The peer's own files, and our text as its data set."""
    peer = scratch / "peer"
    data = peer / "data" / "stdlib"
    data.mkdir(parents=True)
    for name in ("train.py", "model.py", "configurator.py"):
        shutil.copy(source / name, peer / name)
    corpus = prepare_corpus("stdlib")
    corpus.tokens("train").astype("<u2").tofile(data / "train.bin")
    corpus.tokens("tune").astype("<u2").tofile(data / "val.bin")
    (data / "meta.pkl").write_bytes(pickle.dumps({"vocab_size": 256}))
    return peer


def compare(
    peer: Path, scratch: Path, name: str, size: dict[str, int], pairs: int
) -> dict[str, object]:
    ours_s, peers_s, loads = [], [], []
    for pair in range(pairs):
        loads.append(observe().load)
        order = ["ours", "peer"] if pair % 2 == 0 else ["peer", "ours"]
        for who in order:
            folder = scratch / f"{name}-{pair}-{who}"
            if who == "ours":
                ours_s.append(run_ours(folder, size))
            else:
                peers_s.append(run_peer(peer, folder, size))
    ratio = paired_ratio(
        [(i, theirs / mine) for i, (theirs, mine) in enumerate(zip(peers_s, ours_s, strict=True))]
    )
    fleet = read_overlay(default_overlay_path()).fleet
    roof = fleet.pools[0].node.accelerator.flop_per_s["fp32"].value
    step_flop = training_flop_per_token(model_of(size), size["seq"]) * size["seq"] * size["batch"]
    return {
        "ratio_peer_over_ours": asdict(ratio),
        "ours_median_step_s": statistics.median(ours_s),
        "peer_median_step_s": statistics.median(peers_s),
        "mfu_ours": step_flop / statistics.median(ours_s) / roof,
        "roof_flop_per_s": roof,
        "load_before_pairs": loads,
    }


def model_of(size: dict[str, int]) -> Model:
    return Model(
        name="gpt2",
        layers=size["layers"],
        hidden=size["hidden"],
        heads=size["heads"],
        kv_heads=size["heads"],
        ffn=4 * size["hidden"],
        vocab=256,
        max_seq_len=size["seq"],
    )


def run_ours(folder: Path, size: dict[str, int]) -> float:
    workload = Train(
        text="stdlib",
        tokens=size["steps"] * size["batch"] * size["seq"],
        seq_len=size["seq"],
        recipe=Recipe(learning_rate=6e-4, global_batch=size["batch"]),
    )
    fleet = read_overlay(default_overlay_path()).fleet
    document = make_document(
        model=model_of(size),
        workload=workload,
        fleet=fleet,
        plan=default_plan(workload, fleet),
        estimate=None,
        seed=1,
        twofold_version=__version__,
    )
    finished = run_job(embedded_job([document], [folder]))
    assert finished.returncode == 0, finished.last_lines
    return statistics.median(read_run(folder).step_times_s[WARMUP_STEPS:])


def run_peer(peer: Path, folder: Path, size: dict[str, int]) -> float:
    settings = {
        "dataset": "stdlib", "device": "cpu", "dtype": "float32", "compile": False,
        "eval_interval": 10**6, "eval_iters": 1, "log_interval": 1, "wandb_log": False,
        "gradient_accumulation_steps": 1, "batch_size": size["batch"], "block_size": size["seq"],
        "n_layer": size["layers"], "n_head": size["heads"], "n_embd": size["hidden"],
        "dropout": 0.0, "bias": True, "max_iters": size["steps"], "out_dir": str(folder),
    }  # fmt: skip
    words = " ".join(f"--{key}={value}" for key, value in settings.items())
    command = Command(
        argv=f"{sys.executable} train.py {words}",
        patterns={"step_time_ms": r"iter \d+: loss [0-9.]+, time ([0-9.]+)ms"},
        discard_steps=WARMUP_STEPS,
    )
    job = command_job("nanoGPT", command, folder, seed=1, working_folder=peer)
    run = read_command_run(command, job, run_job(job), seed=1)
    return float(np.median(run.step_times_s))


if __name__ == "__main__":
    main()
