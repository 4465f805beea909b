"""The requests of a `Serve` workload, drawn from a seed or read from a trace."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from twofold.errors import InputError
from twofold.workload.serve import Lengths, Serve


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """`arrival_s` counts from the start; of closed loops and offline it is 0. The first
    `prefix_tokens` of the input are those of the shared text `prefix`."""

    arrival_s: float
    input_tokens: int
    output_tokens: int
    prefix: int = 0
    prefix_tokens: int = 0


def draw_requests(workload: Serve, seed: int) -> list[Request]:
    """Warm-up and judged requests in order of arrival. Equal seeds give equal requests, and the
    lengths do not depend on the rate, so that rates are compared on the same requests."""
    if workload.arrivals.kind == "trace":
        return _read_trace(Path(workload.arrivals.trace or ""))
    number = workload.warmup_requests + workload.num_requests
    lengths, gaps = np.random.default_rng([seed, 1]), np.random.default_rng([seed, 2])
    inputs = _draw(workload.input, number, lengths)
    outputs = _draw(workload.output, number, lengths)
    shared = workload.shared_prefix
    prefixes = lengths.integers(shared.count if shared else 1, size=number)
    arrivals = _arrival_times(workload, number, gaps)
    return [
        Request(
            arrival_s=float(arrivals[index]),
            input_tokens=int(inputs[index]),
            output_tokens=int(outputs[index]),
            prefix=int(prefixes[index]),
            prefix_tokens=min(shared.tokens, int(inputs[index])) if shared else 0,
        )
        for index in range(number)
    ]


def _draw(lengths: Lengths, number: int, random: np.random.Generator) -> NDArray[np.int64]:
    """Log-normal: the median is mean x exp(-spread^2 / 2)."""
    normal = random.standard_normal(number)
    if lengths.spread == 0:
        values = np.full(number, lengths.mean)
    else:
        median = lengths.mean * math.exp(-(lengths.spread**2) / 2)
        values = median * np.exp(lengths.spread * normal)
    held = np.clip(np.rint(values), lengths.least, lengths.most or np.inf)
    return np.asarray(held, dtype=np.int64)


def _arrival_times(
    workload: Serve, number: int, random: np.random.Generator
) -> NDArray[np.float64]:
    arrivals = workload.arrivals
    if arrivals.kind not in ("poisson", "bursty"):
        return np.zeros(number)
    assert arrivals.rate_per_s is not None
    shape = 1.0 if arrivals.kind == "poisson" else arrivals.burstiness
    gaps = random.gamma(shape, 1.0 / (shape * arrivals.rate_per_s), size=number)
    return np.cumsum(gaps)


def _read_trace(path: Path) -> list[Request]:
    requests = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"the trace cannot be read: {error}", at=str(path), help="check the path"
        ) from error
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            request = Request(
                arrival_s=float(row["arrival_s"]),
                input_tokens=int(row["input_tokens"]),
                output_tokens=int(row["output_tokens"]),
                prefix=int(row.get("prefix", 0)),
                prefix_tokens=int(row.get("prefix_tokens", 0)),
            )
            if min(request.input_tokens, request.output_tokens) < 1 or request.arrival_s < 0:
                raise ValueError("lengths are at least 1 and times not negative")
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"a request cannot be read: {error!r}",
                at=f"{path}, line {number}",
                help='a line is {{"arrival_s": 0.5, "input_tokens": 100, "output_tokens": 20}}',
            ) from error
        requests.append(request)
    if not requests:
        raise InputError("the trace holds no request", at=str(path), help="check the file")
    return sorted(requests, key=lambda request: request.arrival_s)
