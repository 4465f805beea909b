"""From a step on several pools to the whole run: start-up, goodput, money and energy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from twofold.fleet import Pool
from twofold.model import training_flop_per_token
from twofold.outcome import Estimate, Outcome
from twofold.perf.cost import rent_usd
from twofold.perf.energy import energy_parts_j, power_range_w
from twofold.perf.fleet import RESTART_S, STARTUP_S
from twofold.perf.goodput import (
    CHECKPOINT_BYTES_PER_PARAMETER,
    best_goodput_fraction,
    checkpoint_stall_s,
)
from twofold.perf.joints import HOST_BYTES_PER_S
from twofold.policy.checkpointing import failures_per_s
from twofold.search.placement.found import PoolPart, believed
from twofold.search.placement.question import Question


def run_estimate(
    question: Question,
    parts: Sequence[PoolPart],
    step_parts_s: Mapping[str, float],
    half_width: float,
    startup_s: float,
    arithmetic: Sequence[float],
) -> Estimate:
    """The estimate of a plan whose step is the sum of its parts. `arithmetic` is each pool's
    fraction of its own work that is products and attention."""
    workload = question.workload
    step_s = sum(step_parts_s.values())
    pools = [question.fleet.pool(part.pool) for part in parts]
    goodput = 1.0 if question.local else _goodput(question, pools, parts, step_s)
    startup_s = startup_s if question.local else STARTUP_S
    time_s = (startup_s + workload.num_steps * step_s) / goodput
    energy_j = _energy_j(pools, parts, step_s, step_parts_s, arithmetic)
    fullest = max(parts, key=lambda part: part.full)
    low_s, high_s = believed(step_s, half_width)
    return Estimate(
        outcome=Outcome(
            step_time_s=step_s,
            num_steps=workload.num_steps,
            startup_s=startup_s,
            tokens_per_step=workload.tokens_per_step,
            flop_per_step=training_flop_per_token(question.model, workload.seq_len)
            * workload.tokens_per_step,
            peak_memory_bytes=fullest.peak_bytes,
            step_parts_s=dict(step_parts_s),
            energy_j=None if energy_j is None else energy_j * time_s / step_s,
            energy_grade="unknown" if energy_j is None else "modelled",
            cost_usd=_cost_usd(pools, parts, time_s),
            goodput_fraction=goodput,
        ),
        step_time_low_s=low_s,
        step_time_high_s=high_s,
        basis=_basis(question),
    )


def _basis(question: Question) -> str:
    if question.local:
        device = question.pools[0].node.accelerator
        assert device.curves is not None
        return f"measured curves of {device.name} under {device.curves.framework}, by quota"
    return "physics of each pool with efficiencies fitted on published runs"


def num_machines(pool: Pool, part: PoolPart) -> int:
    return -(-part.devices // pool.node.num_accelerators)


def _goodput(
    question: Question, pools: Sequence[Pool], parts: Sequence[PoolPart], step_s: float
) -> float:
    """Any pool's failure stops all: rates add up. Pools whose rate is unknown add none."""
    rate = sum(
        float(
            failures_per_s(
                part.devices,
                failures.value if (failures := pool.node.accelerator.failures_per_hour) else 0.0,
                0.0,
                num_machines(pool, part),
                preempted.value if (preempted := pool.preemptions_per_hour) else 0.0,
            )
        )
        for pool, part in zip(pools, parts, strict=True)
    )
    if rate <= 0:
        return 1.0
    hosts = [link.bandwidth_bytes_per_s.value for p in pools if (link := p.node.link("host"))]
    devices = sum(part.devices for part in parts)
    stall = checkpoint_stall_s(
        CHECKPOINT_BYTES_PER_PARAMETER * question.parameters / devices,
        min(hosts, default=HOST_BYTES_PER_S),
    )
    return float(best_goodput_fraction(step_s, stall, rate, RESTART_S))


def _cost_usd(pools: Sequence[Pool], parts: Sequence[PoolPart], time_s: float) -> float | None:
    total = 0.0
    for pool, part in zip(pools, parts, strict=True):
        if pool.usd_per_node_hour is None:
            return None
        total += float(rent_usd(pool.usd_per_node_hour.value, num_machines(pool, part), time_s))
    return total


def _energy_j(
    pools: Sequence[Pool],
    parts: Sequence[PoolPart],
    step_s: float,
    step_parts_s: Mapping[str, float],
    arithmetic: Sequence[float],
) -> float | None:
    """Joules of a step: who waits idles. None where a device's power is not known, and under a
    quota, of which no power is known."""
    messages_s = sum(v for name, v in step_parts_s.items() if name.endswith("messages"))
    total = 0.0
    for pool, part, fraction in zip(pools, parts, arithmetic, strict=True):
        device, node = pool.node.accelerator, pool.node
        power_w = power_range_w(device)
        if power_w is None or pool.cpu_cores is not None:
            return None
        idle_w, max_w = power_w
        overhead = (
            node.power_overhead_w.value / node.num_accelerators if node.power_overhead_w else 0.0
        )
        busy = min(1.0, part.busy_s / step_s)
        joules = energy_parts_j(
            step_s,
            idle_w=idle_w,
            max_w=max_w,
            tensor_fraction=busy * fraction,
            memory_fraction=busy * (1.0 - fraction),
            link_fraction=messages_s / step_s,
            overhead_w_per_device=overhead,
            pue=pool.pue.value if pool.pue else 1.0,
            rented=num_machines(pool, part) * node.num_accelerators / part.devices,
        )
        total += part.devices * float(np.sum(joules))
    return total
