"""Clients of others against our server: the openai package, and NVIDIA's aiperf beside ours.

    python benchmarks/clients.py [--rounds 5] [--requests 30] [--output FILE]

Makes a scratch environment with `openai` and `aiperf`, starts `twofold serve` of a small random
Llama (28 million parameters, fp32, one thread, no prefix cache, an API key required), and shows

- that the openai package completes, chats and streams, and gets errors as its own exceptions;
- that `twofold bench` and `aiperf` say the same of the same server. Both send the same bodies
  (prompts as token ids) at the same drawn times, or from as many users; rounds alternate which is
  first, and figures are compared in pairs.

What the tools mean by their names: aiperf's *inter token latency* is our TPOT, (E2E - TTFT) /
(tokens - 1) of each request, and its *inter chunk latency* is our ITL, over the gaps of all
requests. TTFT and E2E count from sending in aiperf, from the intended time in ours; requests/s and
tokens/s are over the first sending to the last token in both.

A small machine is faster in one run than in the next by more than tools differ. So each run's means
are also divided by what the server timed itself in that run (its /metrics), and those quotients are
compared.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from scratch import environment, our_server, small_llama, versions

from twofold import __version__
from twofold.evidence.statistics import paired_ratio
from twofold.host import describe_host, observe
from twofold.measure.load.client import Server, body_of, discover, session
from twofold.measure.load.prompts import WORDS, prompts_of
from twofold.workload.requests import draw_requests
from twofold.workload.serve import Arrivals, Lengths, Serve

HERE = Path(__file__).parent
PACKAGES = ("openai==3.57.0", "aiperf==0.13.0")
KEY = "a-key-of-this-benchmark"
INPUT, OUTPUT = Lengths(mean=96.0), Lengths(mean=32.0)
LOADS = {
    "open loop, 1.5 requests/s": Arrivals(rate_per_s=1.5),
    "closed loop, 4 users": Arrivals(kind="closed", users=4),
}
FIGURES = {
    "ttft mean": ("time_to_first_token", "avg", 1e-3),
    "ttft p50": ("time_to_first_token", "p50", 1e-3),
    "ttft p90": ("time_to_first_token", "p90", 1e-3),
    "tpot mean": ("inter_token_latency", "avg", 1e-3),
    "tpot p50": ("inter_token_latency", "p50", 1e-3),
    "itl mean": ("inter_chunk_latency", "avg", 1e-3),
    "itl p50": ("inter_chunk_latency", "p50", 1e-3),
    "e2e mean": ("request_latency", "avg", 1e-3),
    "e2e p50": ("request_latency", "p50", 1e-3),
    "requests/s": ("request_throughput", "avg", 1.0),
    "output tokens/s": ("output_token_throughput", "avg", 1.0),
}
"""Ours, and where it stands in aiperf's report with the factor to seconds."""
SERVER = {
    "ttft mean": "vllm:time_to_first_token_seconds",
    "tpot mean": "vllm:inter_token_latency_seconds",
    "e2e mean": "vllm:e2e_request_latency_seconds",
}
"""The server's own histograms; all answers are of one length, so its mean gap is the mean TPOT."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=30)
    parser.add_argument("--only", choices=list(LOADS), default=None)
    parser.add_argument("--output", type=Path, default=None)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that servers are ended too
    python = environment("clients", PACKAGES)
    model = small_llama()
    report: dict[str, Any] = {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "twofold": __version__,
        "packages": versions(python, ["openai", "aiperf"]),
        "host": describe_host(),
        "server": "28 million parameters, fp32, 1 thread, no prefix cache; the clients share its "
        "machine",
        "requests": f"{options.requests} of {INPUT.mean:g} tokens in and {OUTPUT.mean:g} out a run",
        "loads": {},
    }
    with (
        tempfile.TemporaryDirectory() as scratch,
        our_server(model, Path(scratch), threads=1, api_key=KEY) as (url, _),
    ):
        report["openai"] = openai_checks(python, url)
        print(json.dumps(report["openai"], indent=1), flush=True)
        for load, arrivals in LOADS.items():
            if options.only not in (None, load):
                continue
            workload = Serve(
                arrivals=arrivals, input=INPUT, output=OUTPUT, num_requests=options.requests
            )
            tools = Tools(python, url, model, workload, Path(scratch))
            report["loads"][load] = compared(tools, options.rounds)
            print(table(load, report["loads"][load]), flush=True)
    if options.output is not None:
        options.output.write_text(json.dumps(report, indent=1) + "\n")
    if not all(report["openai"].values()):
        raise SystemExit("the openai package did not get what it asked for")


def openai_checks(python: Path, url: str) -> dict[str, bool]:
    script = str(HERE / "clients_openai.py")
    done = subprocess.run(
        [str(python), script, url, KEY], stdout=subprocess.PIPE, text=True, check=True
    )
    checks: dict[str, bool] = json.loads(done.stdout)
    return checks


class Tools:
    """Both tools against one server under one workload; each run gives our figures' names."""

    def __init__(self, python: Path, url: str, model: Path, workload: Serve, scratch: Path) -> None:
        self.python, self.url, self.model = python, url, model
        self.runs = {"twofold bench": self._ours, "aiperf": self._theirs}
        self.workload, self.scratch = workload, scratch
        self.toml = scratch / "workload.toml"
        self.toml.write_text(_toml(workload))

    def run(self, name: str, seed: int) -> dict[str, float]:
        """The tool's figures, and as `server ...` the server's own over the same requests."""
        before = histograms(self.url)
        figures = self.runs[name](seed)
        after = histograms(self.url)
        for figure, metric in SERVER.items():
            (sum_0, count_0), (sum_1, count_1) = before[metric], after[metric]
            figures[f"server {figure}"] = (sum_1 - sum_0) / (count_1 - count_0)
        return figures

    def _ours(self, seed: int) -> dict[str, float]:
        argv = [sys.executable, "-m", "twofold.cli", "bench", self.url, "--serve", str(self.toml)]
        argv += ["--requests", str(self.workload.num_requests), "--warmup", "0"]
        done = subprocess.run(
            [*argv, "--seed", str(seed), "--json"],
            env=os.environ | {"OPENAI_API_KEY": KEY},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode in (0, 1), done.stderr  # 1: the targets were not reached
        said = json.loads(done.stdout)
        outcome = said["outcome"]
        assert not said["errors"], said["errors"]
        latencies = {
            "ttft": outcome["ttft_s"], "tpot": outcome["tpot_s"], "itl": said["itl_s"],
            "e2e": outcome["e2e_s"],
        }  # fmt: skip
        rates = {
            "requests/s": outcome["num_requests"] / outcome["duration_s"],
            "output tokens/s": outcome["output_tokens"] / outcome["duration_s"],
        }
        return {
            name: rates[name] if name in rates else latencies[name.split()[0]][name.split()[1]]
            for name in FIGURES
        }

    def _theirs(self, seed: int) -> dict[str, float]:
        """aiperf replays the bodies that ours sends with that seed. First comes the one-token
        request with which ours finds out what the server takes: it is in the server's means."""
        asyncio.run(_found(self.url))
        trace = self.scratch / "trace.jsonl"
        trace.write_text("".join(json.dumps(row) + "\n" for row in self._rows(seed)))
        with tempfile.TemporaryDirectory(dir=self.scratch) as folder:
            argv = [str(self.python.parent / "aiperf"), "profile", "--model", self.model.name]
            argv += ["--tokenizer", str(self.model), "--url", self.url, "--api-key", KEY]
            argv += ["--endpoint-type", "completions", "--streaming", "--use-server-token-count"]
            argv += ["--input-file", str(trace), "--custom-dataset-type", "mooncake-trace"]
            argv += ["--artifact-dir", folder, "--ui", "none", "--no-gpu-telemetry"]
            argv += ["--no-server-metrics", *self._pacing()]
            done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            if done.returncode:
                raise SystemExit(f"aiperf ended with {done.returncode}:\n{done.stdout[-3000:]}")
            said = json.loads((Path(folder) / "profile_export_aiperf.json").read_text())
        assert said["request_count"]["avg"] == self.workload.num_requests, said["request_count"]
        return {name: f * said[key][part] for name, (key, part, f) in FIGURES.items()}

    def _pacing(self) -> list[str]:
        users = self.workload.arrivals.users
        if users is None:
            return ["--fixed-schedule"]
        count = str(self.workload.num_requests)
        return ["--no-fixed-schedule", "--concurrency", str(users), "--request-count", count]

    def _rows(self, seed: int) -> Iterator[dict[str, Any]]:
        server = Server(url=self.url, model=self.model.name, api="completions", takes_ids=True)
        requests = draw_requests(self.workload, seed)
        open_loop = self.workload.arrivals.users is None
        for request, prompt in zip(requests, prompts_of(requests, server, seed), strict=True):
            payload = body_of(server, prompt, request.output_tokens, seed=seed)
            row: dict[str, Any] = {"payload": payload}
            if open_loop:
                row["timestamp"] = 1e3 * request.arrival_s
            yield row


async def _found(url: str) -> None:
    os.environ["OPENAI_API_KEY"] = KEY
    async with session() as http:
        await discover(http, url, list(WORDS))


def histograms(url: str) -> dict[str, tuple[float, float]]:
    """Sum in seconds and count of the server's histograms."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=10) as response:
        lines = response.read().decode().splitlines()
    values = {line.split("{")[0]: float(line.split()[-1]) for line in lines if "{" in line}
    return {name: (values[f"{name}_sum"], values[f"{name}_count"]) for name in SERVER.values()}


def compared(tools: Tools, rounds: int) -> dict[str, Any]:
    """Rounds of both; the ratio of each figure, aiperf's over ours, in pairs."""
    tools.run("twofold bench", 1000)
    names = list(tools.runs)
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    loads = []
    for index in range(rounds):
        loads.append(observe().load)
        for name in names if index % 2 == 0 else names[::-1]:
            runs[name].append(tools.run(name, index))
            print(f"round {index + 1}: {name}: {brief(runs[name][-1])}", flush=True)
    pairs = list(zip(*runs.values(), strict=True))
    return {
        "load_before_rounds": loads,
        "runs": runs,
        "ratio_aiperf_over_ours": {
            name: ratio([theirs[name] / ours[name] for ours, theirs in pairs]) for name in FIGURES
        },
        "ratio_aiperf_over_ours_each_over_the_server": {
            name: ratio([beside(theirs, name) / beside(ours, name) for ours, theirs in pairs])
            for name in SERVER
        },
        "tool_over_server": {
            tool: {name: ratio([beside(run, name) for run in each]) for name in SERVER}
            for tool, each in runs.items()
        },
    }


def beside(run: dict[str, float], name: str) -> float:
    return run[name] / run[f"server {name}"]


def ratio(ratios: Sequence[float]) -> dict[str, Any]:
    kept = asdict(paired_ratio(list(enumerate(ratios))))
    return {name: kept[name] for name in ("value", "low", "high")}


def brief(figures: dict[str, float]) -> str:
    return (
        f"TTFT {1e3 * figures['ttft p50']:.1f} ms, TPOT {1e3 * figures['tpot p50']:.2f} ms, "
        f"{figures['output tokens/s']:.1f} tokens/s"
    )


def table(load: str, found: dict[str, Any]) -> str:
    lines = [f"{load}: aiperf / twofold bench (95 %)"]
    for name, one in found["ratio_aiperf_over_ours"].items():
        mine = [run[name] for run in found["runs"]["twofold bench"]]
        lines.append(f"  {name:16} {_bounds(one)}   ours {sum(mine) / len(mine):.4g}")
    for name, one in found["ratio_aiperf_over_ours_each_over_the_server"].items():
        tools = found["tool_over_server"]
        each = ", ".join(f"{tool} / server {tools[tool][name]['value']:.3f}" for tool in tools)
        lines.append(f"  {name:10} over the server's own: {_bounds(one)}   {each}")
    return "\n".join(lines)


def _bounds(one: dict[str, Any]) -> str:
    known = one["low"] is not None
    return f"{one['value']:.3f}" + (f" ({one['low']:.3f} to {one['high']:.3f})" if known else "")


def _toml(workload: Serve) -> str:
    arrivals = workload.arrivals
    how = (
        f'kind = "closed", users = {arrivals.users}'
        if arrivals.users
        else f"rate_per_s = {arrivals.rate_per_s}"
    )
    return (
        f"arrivals = {{ {how} }}\ninput = {{ mean = {workload.input.mean} }}\n"
        f"output = {{ mean = {workload.output.mean} }}\n"
    )


if __name__ == "__main__":
    main()
