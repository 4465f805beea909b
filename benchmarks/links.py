"""gloo's all-reduce between hosts with limited links, beside what `perf.sockets` predicts.

    python benchmarks/links.py [--output FILE.json]

Hosts are network namespaces under `tc tbf` limits (root). Predicted from what is known beforehand:
the limit and its burst, this machine's probe on loopback (which `twofold calibrate` runs), and how
much longer than on loopback a message of four bytes takes across the link. No all-reduce between
the hosts is looked at.

Errors are relative, and told twice: of the median of the repetitions, and of the least, predicted
from the least on loopback. Other processes on the machine only add time, and a message of a few
kilobytes lasts no longer than they do.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from slow_hosts import FIRST_ADDRESS, PORT, burst_bytes, run_on, slow_hosts

from twofold.calibrate.rows import of_kind
from twofold.calibrate.sockets import fit_socket_path
from twofold.host import describe_host, observe
from twofold.perf.sockets import Port, SocketPath, all_reduce_s, ring_bytes
from twofold.runtime.probe.collectives import SIZES, probe_all_reduce
from twofold.runtime.probe.timing import Bench

Row = dict[str, Any]

LIMITS: tuple[tuple[float, ...], ...] = (
    *((rate,) * hosts for rate in (10, 50, 100, 200, 1000, 0) for hosts in (2, 3)),
    (1000, 100, 1000),
)
"""Mbit/s of each host's port, 0 without a limit."""
TARGET = 0.25
TIMES = ("time_s", "least_s")
_LONGEST_S = 1.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=None)
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    load_before = observe().load
    loopback = probe_all_reduce(Bench(device=torch.device("cpu"), seconds=1.0))
    exchanges = of_kind(loopback, "all_reduce")
    paths = {name: fit_socket_path([{**r, "time_s": r[name]} for r in exchanges]) for name in TIMES}
    message_s = of_kind(loopback, "message")[0]["least_s"]
    rows: list[Row] = []
    for _ in range(options.rounds):
        for limits in LIMITS:
            rows += measure(limits, paths, message_s)
            print(told(limits, rows[-len(SIZES) :]), flush=True)
    report = {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": describe_host(),
        "load_before": load_before,
        "load_after": observe().load,
        "paths": {name: asdict(path) for name, path in paths.items()},
        "loopback": loopback,
        "errors": {
            "all": summary(rows),
            **{
                f"{hosts} hosts, {rate or 'no limit'}": summary(
                    [r for r in rows if r["mbit_per_s"] == [rate] * hosts]
                )
                for rate in (10, 50, 100, 200, 1000, 0)
                for hosts in (2, 3)
            },
            "unlike": summary([r for r in rows if len(set(r["mbit_per_s"])) > 1]),
            "10 ms and longer": summary([r for r in rows if r["least_s"] >= 0.01]),
            "shorter": summary([r for r in rows if r["least_s"] < 0.01]),
        },
        "rows": rows,
    }
    print(json.dumps({"paths": report["paths"], "errors": report["errors"]}, indent=1))
    if options.output is not None:
        options.output.write_text(json.dumps(report, indent=1) + "\n")


def measure(limits: tuple[float, ...], paths: dict[str, SocketPath], message_s: float) -> list[Row]:
    ranks = len(limits)
    slowest = min((rate for rate in limits if rate), default=0.0)
    most = SIZES[-1] if not slowest else int(_LONGEST_S * slowest * 1e6 / 8 / ring_bytes(1, ranks))
    with slow_hosts(limits, most_s=120) as hosts:
        worker = [sys.executable, "-m", "twofold.runtime.probe.collectives"]
        commands = {
            host: [
                *worker, str(rank), str(ranks), FIRST_ADDRESS, str(PORT), "--most-bytes", str(most)
            ]
            for rank, host in enumerate(hosts)
        }  # fmt: skip
        printed = run_on(commands, patience_s=110)
    found = [json.loads(line) for line in printed.splitlines()]
    across_s = max(0.0, of_kind(found, "message")[0]["least_s"] - message_s)
    ports = [
        Port(
            bytes_per_s=rate * 1e6 / 8 if rate else float("inf"),
            burst_bytes=burst_bytes(rate),
            latency_s=across_s,
        )
        for rate in limits
    ]
    cores = len(os.sched_getaffinity(0))
    rows = []
    for row in of_kind(found, "all_reduce"):
        predicted = {
            name: all_reduce_s(row["bytes"], ranks, path, ports, ranks_per_core=ranks / cores)
            for name, path in paths.items()
        }
        rows.append(
            {
                **row,
                "mbit_per_s": list(limits),
                "ring_bytes": ring_bytes(row["bytes"], ranks),
                "link_latency_s": across_s,
                "predicted": predicted,
                "errors": {name: predicted[name] / row[name] - 1 for name in TIMES},
                "load": observe().load,
            }
        )
    return rows


def summary(rows: list[Row]) -> Row | None:
    if not rows:
        return None
    return {name: _summary(rows, name) for name in TIMES}


def _summary(rows: list[Row], name: str) -> Row:
    errors = [abs(row["errors"][name]) for row in rows]
    worst = max(rows, key=lambda row: abs(row["errors"][name]))
    return {
        "rows": len(rows),
        "median": statistics.median(errors),
        "worst": worst["errors"][name],
        "worst_at": {"mbit_per_s": worst["mbit_per_s"], "bytes": worst["bytes"]},
        "within_target": sum(error <= TARGET for error in errors),
    }


def told(limits: tuple[float, ...], rows: list[Row]) -> str:
    mine = [row for row in rows if row["mbit_per_s"] == list(limits)]
    cells = [
        f"{row['bytes']}: {row['time_s'] * 1e3:.2f} ms {row['errors']['time_s']:+.0%}, "
        f"least {row['least_s'] * 1e3:.2f} ms {row['errors']['least_s']:+.0%}"
        for row in mine
    ]
    return f"{limits}: " + ", ".join(cells)


if __name__ == "__main__":
    main()
