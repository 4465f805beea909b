"""How many complete estimates a CPU second, on one core, beside Calculon; and whole searches.

    python benchmarks/plan_speed.py [--peer CHECKOUT] [--peer-python PYTHON]
        [--output FILE] [--plot PNG]

CHECKOUT is a clone of github.com/calculon-ai/calculon (Apache-2.0), fetched by you, and PYTHON
an interpreter that has pandas and psutil for it. Ours and the peer's blocks alternate, each in
its own process, timed by its own CPU clock; the load is written beside the numbers.

*Complete* is every part of an `Estimate`: the step and its parts, memory of the fullest stage and
its parts, interval, goodput, time, cost, energy and its parts, carbon. Only plans priced in full
are counted as estimates; candidates that a rule rejects or that do not fit the memory are
reported apart. Every column is summed into a checksum, so that none is dead work, and a thousand
random rows are priced again one by one.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from twofold import __version__
from twofold.catalog import resolve_pool
from twofold.perf.fleet import FleetColumns, Problem, estimate_at, estimate_plans, make_problem
from twofold.perf.plans import plan_at
from twofold.perf.speeds import fitted_efficiencies
from twofold.plan import Precision
from twofold.search import best_plans
from twofold.search.factors import divisors
from twofold.search.fleet_space import make_space
from twofold.search.levers import Levers, make_levers
from twofold.search.sweep import PricedSpace, price_space, priced_chunks
from twofold.sources import find_model
from twofold.workload import Recipe, Train

BLOCKS, BLOCK_S = 4, 2.0
CHECKED_ROWS = 1000
DATE = "2026-11"
WIDE_PRECISIONS: tuple[Precision, ...] = ("bf16", "fp16", "tf32")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", type=Path)
    parser.add_argument("--peer-python", default=sys.executable)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--plot", type=Path, help="PNG of cost by size; needs matplotlib")
    parser.add_argument("--note", default="", help="conditions worth writing beside the numbers")
    options = parser.parse_args()
    load = os.getloadavg()
    gpt3 = problem("gpt3-175b", "azure-ndm-a100-v4:128", 1536, 2048)
    report: dict[str, Any] = {
        "twofold": __version__,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs",
        "note": options.note,
        "load_before": load,
        "rates": rates(options.peer, options.peer_python),
        "rows_checked": checked_rows(gpt3),
        "wide_space": wide_space(gpt3),
        "searches": [
            whole_search("llama-3.1-405b", "azure-nd-h100-v5:2048", 2048, 8192, target_s=2.0),
            whole_search("deepseek-v3", "azure-nd-h100-v5:12500", 16_000, 4096, target_s=10.0),
            whole_search("deepseek-v3", "azure-nd-h100-v5:12288", 24_576, 4096, target_s=10.0),
        ],
        "cost_by_size": cost_by_size(),
        "load_after": os.getloadavg(),
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
    text = json.dumps(report, indent=1)
    print(text)
    if options.output:
        options.output.write_text(text + "\n")
    if options.plot:
        plot(report["cost_by_size"], options.plot)


def problem(model: str, pool: str, global_batch: int, seq_len: int) -> Problem:
    recipe = Recipe(learning_rate=1e-4, global_batch=global_batch)
    workload = Train(text="stdlib", tokens=10**12, seq_len=seq_len, recipe=recipe)
    fleet = resolve_pool(pool, region="USA")
    return make_problem(find_model(model), workload, fleet, fitted_efficiencies(), DATE)


def priced(case: Problem, levers: Levers | None = None) -> PricedSpace:
    return price_space(case, make_space(case, levers or make_levers(case)))


def checksum(columns: FleetColumns) -> float:
    """The sum of every column, so that each is looked at."""
    energy = columns.energy_parts
    assert energy is not None, "an estimate without energy is not complete"
    assert columns.cost_usd is not None, "an estimate without cost is not complete"
    assert columns.carbon_kgco2e is not None, "an estimate without carbon is not complete"
    assert columns.energy_j is not None
    every = [
        *columns.step.parts_s.values(), columns.step.step_time_s, columns.step_time_low_s,
        columns.step_time_high_s, *columns.footprint.parts_bytes.values(),
        columns.footprint.peak_bytes, columns.goodput_fraction, columns.time_s, *energy,
        columns.energy_j, columns.cost_usd, columns.carbon_kgco2e,
    ]  # fmt: skip
    return float(sum(float(column.sum()) for column in every))


def estimates(space: PricedSpace, seconds: float | None = None) -> dict[str, float]:
    """Price a space in full, again and again until the CPU seconds are over, or once."""
    limit_bytes = space.problem.pool.node.accelerator.memory.usable_bytes.value
    start, total, count = time.process_time(), 0.0, 0
    while True:
        for chunk, _ in priced_chunks(space, limit_bytes):
            if chunk is not None:
                total += checksum(chunk.columns)
                count += len(chunk.layout)
            if seconds is not None and time.process_time() - start > seconds:
                break
        if seconds is None or time.process_time() - start > seconds:
            break
    cpu_s = time.process_time() - start
    return {"estimates": count, "cpu_s": cpu_s, "per_cpu_s": count / cpu_s, "checksum": total}


def rates(peer: Path | None, python: str) -> dict[str, Any]:
    """Blocks of ours and of the peer, in turn. GQA, experts and all ZeRO stages are in ours."""
    spaces = {
        "gpt3-175b on 1,024 A100": priced(
            problem("gpt3-175b", "azure-ndm-a100-v4:128", 1536, 2048)
        ),
        "llama-3.1-405b on 16,384 H100": priced(
            problem("llama-3.1-405b", "azure-nd-h100-v5:2048", 2048, 8192)
        ),
        "deepseek-v3 on 2,048 H100": priced(
            problem("deepseek-v3", "azure-nd-h100-v5:256", 15_360, 4096)
        ),
    }
    blocks: dict[str, list[Any]] = {name: [] for name in spaces}
    worker = None
    if peer is not None:
        script = Path(__file__).with_name("plan_speed_peer.py")
        worker = subprocess.Popen(
            [python, str(script), str(peer)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert worker.stdin is not None
        assert worker.stdout is not None
        blocks["peer"] = []
        size = json.loads(worker.stdout.readline())["space"]
    for _ in range(BLOCKS):
        for name, space in spaces.items():
            blocks[name].append(estimates(space, BLOCK_S))
        if worker is not None and worker.stdin and worker.stdout:
            print(BLOCK_S, file=worker.stdin, flush=True)
            blocks["peer"].append(json.loads(worker.stdout.readline()))
    result: dict[str, Any] = {
        name: {
            "per_cpu_s_median": statistics.median(b["per_cpu_s"] for b in blocks[name]),
            "per_cpu_s": [round(b["per_cpu_s"]) for b in blocks[name]],
            "estimates": sum(b["estimates"] for b in blocks[name]),
            "checksum": blocks[name][0]["checksum"],
        }
        for name in spaces
    }
    if worker is not None and worker.stdin:
        worker.stdin.close()
        worker.wait()
        done, refused, cpu_s = (
            sum(b[key] for b in blocks["peer"]) for key in ("completed", "rejected", "cpu_s")
        )
        result["Calculon, gpt3-175b on 1,024 A100"] = {
            "space": size,
            "completed": done,
            "rejected": refused,
            "completed_per_cpu_s": done / cpu_s,
            "with_rejected_per_cpu_s": (done + refused) / cpu_s,
        }
    return result


def checked_rows(case: Problem) -> dict[str, Any]:
    """Random plans of the space, priced again one at a time: the largest relative difference of
    any number in the estimate."""
    space = priced(case)
    limit_bytes = case.pool.node.accelerator.memory.usable_bytes.value
    chunks = [chunk for chunk, _ in priced_chunks(space, limit_bytes) if chunk is not None]
    drawn = np.random.default_rng(7)
    worst = 0.0
    for _ in range(CHECKED_ROWS):
        chunk = chunks[drawn.integers(len(chunks))]
        row = int(drawn.integers(len(chunk.layout)))
        table = space.space.plans(chunk.layout, chunk.order, chunk.recomputed_layers)
        here = numbers(asdict(estimate_at(case, chunk.columns, table, row)))
        alone = numbers(asdict(estimate_plans(case, [plan_at(table, row, case.pool.name)])[0]))
        assert len(here) == len(alone) > 30
        for one, other in zip(here, alone, strict=True):
            worst = max(worst, abs(one - other) / max(abs(one), abs(other), 1e-300))
    return {"rows": CHECKED_ROWS, "largest_relative_difference": worst, "passes": worst < 1e-9}


def numbers(value: Any) -> list[float]:
    if isinstance(value, dict):
        return [number for part in value.values() for number in numbers(part)]
    return [float(value)] if isinstance(value, int | float) else []


def wide_space(case: Problem) -> dict[str, Any]:
    """As many candidates as Calculon has for GPT-3 175B on 1,024 A100 (11,698,528), one by one.

    Counted: every combination of data x tensor x context x pipeline = 1,024, ZeRO stage and shard
    group (any number of ranks that divides them), offload, micro-batch (all divisors of 1,536),
    schedule with its chunks, sequence parallelism, three precisions, recomputation none or all;
    and the least that fits where it is neither. Those that break a rule are rejected by it; all
    the others are priced for memory, and those that fit for everything.
    """
    levers = Levers(
        device_counts=(case.pool.num_devices,),
        precisions=WIDE_PRECISIONS,
        micro_batches=tuple(divisors(case.workload.recipe.global_batch)),
        every_shard=True,
    )
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    space = make_space(case, levers)
    result = estimates(price_space(case, space))
    cpu_s, wall_s = time.process_time() - cpu_s, time.perf_counter() - wall_s
    return {
        "considered": 2 * space.num_rows + space.rejected.total(),
        "legal": 2 * space.num_rows,
        "priced_in_full": result["estimates"],
        "cpu_s": cpu_s,
        "wall_s": wall_s,
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "checksum": result["checksum"],
    }


def whole_search(
    model: str, pool: str, global_batch: int, seq_len: int, *, target_s: float
) -> dict[str, Any]:
    """`best_plans` from scratch, the operator table included."""
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    case = problem(model, pool, global_batch, seq_len)
    found = best_plans(case)
    return {
        "model": model,
        "devices": case.pool.num_devices,
        "considered": found.num_considered,
        "fitting": found.num_fitting,
        "cpu_s": time.process_time() - cpu_s,
        "wall_s": time.perf_counter() - wall_s,
        "target_s": target_s,
    }


def cost_by_size() -> list[dict[str, Any]]:
    """Search time against the number of devices, dense and with experts."""
    rows = []
    for model, nodes_of in (("llama-3.1-70b", range(2, 13)), ("mixtral-8x22b", range(2, 13))):
        for power in nodes_of:
            nodes = 2**power
            case = problem(model, f"azure-nd-h100-v5:{nodes}", 8 * nodes, 8192)
            cpu_s = time.process_time()
            found = best_plans(case)
            rows.append(
                {
                    "model": model,
                    "devices": case.pool.num_devices,
                    "considered": found.num_considered,
                    "fitting": found.num_fitting,
                    "cpu_s": time.process_time() - cpu_s,
                }
            )
    return rows


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """CPU seconds of a whole search against devices, both on logs."""
    from matplotlib import pyplot

    for model in sorted({row["model"] for row in rows}):
        points = [(row["devices"], row["cpu_s"]) for row in rows if row["model"] == model]
        pyplot.loglog(*zip(*points, strict=True), marker="o", label=model)
    pyplot.xlabel("devices")
    pyplot.ylabel("CPU seconds of a whole search")
    pyplot.legend()
    pyplot.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
