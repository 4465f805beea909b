"""Local updates: every worker takes H optimizer steps alone, then all exchange what they moved.

DiLoCo (Douillard et al. 2023, arXiv 2311.08105) exchanges at once; streaming (arXiv 2501.18512)
sends F fragments behind the steps that follow. The trajectory is another one: on fast links it
costs quality for nothing, so it is for links that the gradients of every step do not fit through.
"""

from __future__ import annotations

import math

OUTER_BYTES = 8.0
"""Per parameter on every worker: the weights of the last exchange, and the outer momentum."""
MOST_LOCAL_STEPS = 500
"""As far as was published (arXiv 2311.08105: 500 steps at equal perplexity)."""
MOST_WORKERS = 64
"""As far as was published (arXiv 2311.08105 varies the replicas from 1 to 64)."""
MEASURED_WORKERS = 8
"""As far as scaling laws were measured (arXiv 2503.09799): at equal tokens quality falls with
workers."""
_ROUND = (1, 2, 5)


def exchange_bytes(parameters: float, bytes_each: float, workers: int) -> float:
    """2 P b (M - 1) / M: what each worker sends in an exchange, as a ring's all-reduce."""
    return 2.0 * parameters * bytes_each * (workers - 1) / workers


def needed_bytes_per_s(
    parameters: float,
    bytes_each: float,
    workers: int,
    *,
    overhead_fraction: float,
    local_steps: int,
    step_s: float,
) -> float:
    """W = 2 P b (M - 1) / M / (e H t): the rate at which exchanges add a fraction e to the time."""
    sent = exchange_bytes(parameters, bytes_each, workers)
    return sent / (overhead_fraction * local_steps * step_s)


def streaming_bytes_per_s(
    parameters: float, bytes_each: float, *, fragments: int, overlapped_steps: int, step_s: float
) -> float:
    """W = 2 P b / (F k t): the peak rate where a fragment has k steps to be exchanged in."""
    return 2.0 * parameters * bytes_each / (fragments * overlapped_steps * step_s)


def fewest_local_steps(exchange_s: float, step_s: float, overhead_fraction: float) -> int:
    """The least H of 1, 2, 5, 10 .. with exchange / H <= e t, at most `MOST_LOCAL_STEPS`: the
    fewer local steps, the nearer to synchronous training."""
    needed = exchange_s / (overhead_fraction * step_s)
    for decade in range(math.ceil(math.log10(MOST_LOCAL_STEPS)) + 1):
        for digit in _ROUND:
            steps = digit * 10**decade
            if steps >= needed:
                return int(min(steps, MOST_LOCAL_STEPS))
    return MOST_LOCAL_STEPS


def exposed_s(exchange_s: float, step_s: float, *, local_steps: int, fragments: int) -> float:
    """Seconds a step: exchange / H at once; of a stream only what H steps cannot hide,
    max(0, exchange / H - t)."""
    each = exchange_s / local_steps
    return each if fragments == 1 else max(0.0, each - step_s)
