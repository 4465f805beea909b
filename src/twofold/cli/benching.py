"""The verb that measures a running server."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from twofold.cli.choices import read_option
from twofold.cli.output import EXIT_NO, answer, say, watcher
from twofold.errors import InputError
from twofold.units import parse_seconds

EXIT_INTERRUPTED = 130


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Send a workload to an OpenAI-compatible server: latency percentiles, goodput, energy.

    The exit code is 1 where the targets are not reached or a request failed, 130 after Ctrl-C.
    """

    url: tyro.conf.Positional[str]
    """The server, for example http://localhost:8000."""
    serve: str = "chat"
    """A named workload (chat, code, summarise, reasoning, tiny, mlperf-...) or a TOML file."""
    rate: float | None = None
    """Requests a second, whatever becomes of earlier ones (open loop, Poisson)."""
    users: int | None = None
    """Instead of a rate: so many users who each wait for an answer before they ask again."""
    requests: int = 100
    """How many requests are judged."""
    warmup: int = 4
    """How many are sent before them and not judged."""
    at_least: str = "0s"
    """Go on with more requests until this time has passed (MLPerf: 10min)."""
    ttft: str | None = None
    """Target of the time to first token, for example 500ms; the workload's unless said."""
    tpot: str | None = None
    """Target of the time per output token after the first."""
    seed: int = 0
    """Of arrivals, lengths and prompts."""
    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None
    """Write the measurement with every request as JSON."""
    json: bool = False
    """Print one JSON document."""

    def execute(self) -> int:
        from twofold.cli.serving_workload import serve_workload
        from twofold.document import write_json
        from twofold.measure.bench import bench
        from twofold.report.bench_text import bench_text

        for number, least, option in (
            (self.requests, 1, "--requests"),
            (self.warmup, 0, "--warmup"),
            (self.seed, 0, "--seed"),
        ):
            if number < least:
                raise InputError(f"it is {number}", at=option, help=f"use {least} or more")
        workload = serve_workload(
            self.serve, rate=self.rate, users=self.users, ttft=self.ttft, tpot=self.tpot
        )
        workload = replace(workload, num_requests=self.requests, warmup_requests=self.warmup)
        least_s = read_option(self.at_least, parse_seconds, at="--at-least")
        try:
            with watcher() as progress:
                found = bench(
                    self.url, workload, seed=self.seed, least_s=least_s, progress=progress
                )
        except KeyboardInterrupt:
            say("interrupted before a request was answered")
            return EXIT_INTERRUPTED
        if self.output is not None:
            write_json(self.output, {"kind": "bench", **asdict(found)})
        if self.json:
            without = asdict(replace(found, stretch=replace(found.stretch, answers=())))
            answer(without)
        else:
            answer(bench_text(found, str(self.output) if self.output else None))
        if found.interrupted:
            return EXIT_INTERRUPTED
        return 0 if found.reached else EXIT_NO
