"""What a simulated stretch of serving comes to, in the fields of a measured one."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from collections.abc import Sequence as Rows
from dataclasses import dataclass
from functools import reduce
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from twofold.fleet import Pool
from twofold.perf.billing import running
from twofold.serving_outcome import Percentiles, ServingOutcome
from twofold.simulate.replica import Log
from twofold.simulate.serving import Served
from twofold.workload.serve import Serve, Targets

Array = NDArray[np.float64]
TimeName = Literal["ttft_s", "tpot_s", "e2e_s"]
_OPEN = ("poisson", "bursty", "trace")
"""Arrivals that come whatever becomes of earlier ones."""
_OVERLOADED = 0.05
"""A wait that grows by less than this share of the time is chance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """The judged requests: their times, [requests], and how many tokens each asked for."""

    arrival_s: Array
    ttft_s: Array
    tpot_s: Array
    e2e_s: Array
    input_tokens: NDArray[np.int64]
    output_tokens: NDArray[np.int64]
    cached_tokens: NDArray[np.int64]

    def quantile(self, name: TimeName, share: float) -> float:
        """Of one of the times, over the requests that have it."""
        values: Array = getattr(self, name)
        if name == "tpot_s":
            values = values[self.output_tokens > 1]
        return float(np.quantile(values, share)) if len(values) else 0.0

    def met(self, targets: Targets) -> NDArray[np.bool_]:
        """Which of them meet all targets; one output token alone has no time per token."""
        limits = ((self.ttft_s, targets.ttft_s), (self.e2e_s, targets.e2e_s))
        met = self.output_tokens < 2
        met |= self.tpot_s <= (np.inf if targets.tpot_s is None else targets.tpot_s)
        for value_s, limit_s in limits:
            met &= value_s <= (np.inf if limit_s is None else limit_s)
        return met


def judged(workload: Serve, served: Served) -> Judged:
    """Those after the warm-up."""
    rows = slice(workload.warmup_requests, None)
    requests = served.requests[rows]
    outputs = np.array([request.output_tokens for request in requests])
    ttft_s = (served.first_s - served.arrival_s)[rows]
    e2e_s = (served.last_s - served.arrival_s)[rows]
    return Judged(
        arrival_s=served.arrival_s[rows],
        ttft_s=ttft_s,
        tpot_s=(e2e_s - ttft_s) / np.maximum(outputs - 1, 1),
        e2e_s=e2e_s,
        input_tokens=np.array([request.input_tokens for request in requests]),
        output_tokens=outputs,
        cached_tokens=served.cached[rows],
    )


def outcome_of(
    workload: Serve,
    served: Served,
    pools: Rows[tuple[Pool, int]],
    memory: Mapping[str, float],
) -> ServingOutcome:
    """Of the judged requests. `pools` are those of each group of `served.logs`, with its devices;
    `memory` the parts of the fullest device.

    Goodput is the share that met the targets x the rate at which requests were sent, so that in an
    open loop the time that the last answers take does not count.

    Money, energy and carbon are those of these requests' output at the steady load: by the token
    that was told between the first judged arrival and the last, idle machines included.
    """
    requests = judged(workload, served)
    begin_s, answered_s = (
        float(requests.arrival_s[0]),
        float(np.max(requests.arrival_s + requests.e2e_s)),
    )
    window = (begin_s, float(requests.arrival_s[-1]))
    spread_s = window[1] - window[0]
    if window[1] <= window[0]:
        window = (begin_s, answered_s)
    met = None if not _any(workload.targets) else requests.met(workload.targets)
    groups = [_usage(logs, window) for logs in served.logs]
    bill = reduce(
        operator.add,
        (running(p, d, u.busy) for (p, d), u in zip(pools, groups, strict=True)),
    )
    output = int(requests.output_tokens.sum())
    tokens_per_s = sum(usage.tokens_per_s for usage in groups)
    share_s = output / tokens_per_s if tokens_per_s else None
    last = groups[-1]
    several = requests.output_tokens > 1
    duration_s = answered_s - begin_s
    attained = None if met is None else float(met.mean())
    sent_per_s = len(requests.ttft_s) / duration_s
    if workload.arrivals.kind in _OPEN and spread_s > 0:
        sent_per_s = (len(requests.ttft_s) - 1) / spread_s
    return ServingOutcome(
        num_requests=len(requests.ttft_s),
        duration_s=duration_s,
        input_tokens=int(requests.input_tokens.sum()),
        output_tokens=output,
        ttft_s=percentiles(requests.ttft_s),
        tpot_s=percentiles(requests.tpot_s[several]) if several.any() else None,
        e2e_s=percentiles(requests.e2e_s),
        goodput_per_s=None if attained is None else attained * sent_per_s,
        attained_fraction=attained,
        step_time_s=sum(last.step_parts_s.values()),
        step_parts_s=last.step_parts_s,
        kv_used_fraction_mean=last.kv_used_mean,
        kv_used_fraction_peak=last.kv_used_peak,
        cached_fraction=float(requests.cached_tokens.sum() / requests.input_tokens.sum()),
        num_preemptions=served.num_preemptions,
        peak_memory_bytes=sum(memory.values()),
        memory_parts_bytes=dict(memory),
        energy_j=_times(bill.power_w, share_s),
        energy_grade="unknown" if bill.power_w is None else "modelled",
        cost_usd=_times(bill.usd_per_s, share_s),
        carbon_kgco2e=_times(bill.kgco2e_per_s, share_s),
    )


def percentiles(values: Array) -> Percentiles:
    p50, p90, p99 = np.quantile(values, (0.5, 0.9, 0.99))
    return Percentiles(mean=float(values.mean()), p50=float(p50), p90=float(p90), p99=float(p99))


def overload_fraction(workload: Serve, served: Served) -> float:
    """How much more comes than is answered, of what is answered: the slope of the time to the
    first token against the time of arrival. 0 where the queue does not grow, and where users
    wait."""
    if workload.arrivals.kind not in _OPEN:
        return 0.0
    requests = judged(workload, served)
    if len(requests.ttft_s) < 3 or np.ptp(requests.arrival_s) == 0:
        return 0.0
    slope = float(np.polyfit(requests.arrival_s, requests.ttft_s, 1)[0])
    return slope if slope > _OVERLOADED else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Usage:
    """Of one group of replicas in a window of time: shares of the time in each part of a step,
    the mean step by part, tokens told a second by all, and the share of the cache held."""

    busy: dict[str, float]
    step_parts_s: dict[str, float]
    tokens_per_s: float
    kv_used_mean: float
    kv_used_peak: float


def _usage(logs: Rows[Log], window: tuple[float, float]) -> _Usage:
    """Leaps count where they end; a replica that did nothing holds nothing."""
    parts = next((log.parts for log in logs if log.parts), ())
    seconds, steps, tokens, held_s, peak = np.zeros(len(parts)), 0, 0, 0.0, 0.0
    for log in logs:
        if not log.end_s:
            continue
        start, end = np.array(log.start_s), np.array(log.end_s)
        within = (end > window[0]) & (end <= window[1])
        used = np.array(log.kv_used)
        seconds += np.array(log.parts_s)[within].sum(axis=0)
        steps += int(np.array(log.steps)[within].sum())
        tokens += int(np.array(log.tokens)[within].sum())
        held_s += float((used * (end - start))[within].sum())
        peak = max(peak, float(used.max()))
    time_s = len(logs) * (window[1] - window[0])
    return _Usage(
        busy=dict(zip(parts, (float(value) for value in seconds / time_s), strict=True)),
        step_parts_s={
            part: float(value) / max(steps, 1) for part, value in zip(parts, seconds, strict=True)
        },
        tokens_per_s=tokens / (window[1] - window[0]),
        kv_used_mean=held_s / time_s,
        kv_used_peak=peak,
    )


def _times(rate: float | None, seconds: float | None) -> float | None:
    return None if rate is None or seconds is None else rate * seconds


def _any(targets: Targets) -> bool:
    return any(limit is not None for limit in (targets.ttft_s, targets.tpot_s, targets.e2e_s))
