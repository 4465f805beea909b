"""A stretch of requests with what was seen around it: load, other processes, energy."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import aiohttp

from twofold.evidence.serving.answers import Stretch, StretchKind
from twofold.host import EnergyCounter, contention, observe
from twofold.measure.load.client import Prompt, Server
from twofold.measure.load.drive import Driven, OnDone, drive
from twofold.workload.requests import Request
from twofold.workload.serve import Serve


async def drive_watched(
    http: aiohttp.ClientSession,
    server: Server,
    workload: Serve,
    requests: Sequence[Request],
    prompts: Sequence[Prompt],
    *,
    arm: str,
    kind: StretchKind,
    seed: int,
    block: int = 0,
    position: int = 0,
    least_s: float = 0.0,
    counter: EnergyCounter | None = None,
    logprobs: int | None = None,
    on_done: OnDone | None = None,
    stop: asyncio.Event | None = None,
) -> tuple[Driven, Stretch]:
    before, reading = observe(), counter.read() if counter else None
    driven = await drive(
        http,
        server,
        workload,
        requests,
        prompts,
        seed=seed,
        least_s=least_s,
        logprobs=logprobs,
        on_done=on_done,
        stop=stop,
    )
    after = observe()
    seen = contention(before, after)
    energy_j = None
    if counter is not None and reading is not None:
        energy_j = counter.between_j(reading, counter.read())
    stretch = Stretch(
        arm=arm,
        kind=kind,
        block=block,
        position=position,
        seed=seed,
        rate_per_s=_rate_per_s(workload),
        users=workload.arrivals.users,
        num_warmup=min(workload.warmup_requests, max(0, len(driven.answers) - 1)),
        answers=driven.answers,
        energy_j=energy_j,
        load_before=before.load,
        load_after=after.load,
        steal_fraction=seen.steal_fraction,
        crowded_cores=seen.crowded_cores,
    )
    return driven, stretch


def _rate_per_s(workload: Serve) -> float | None:
    open_loop = workload.arrivals.kind in ("poisson", "bursty")
    return workload.arrivals.rate_per_s if open_loop else None
