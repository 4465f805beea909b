"""The values that a search tries for each lever."""

from __future__ import annotations

from dataclasses import dataclass

from twofold.perf.fleet import Problem
from twofold.perf.plans import OFFLOADS
from twofold.plan import Offload, Precision
from twofold.search.fleet_rules import default_precision

_HALVINGS = 12
_BUSY_FRACTION = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Levers:
    """The values to try. `device_counts` are all devices, or fewer as well. State is sharded
    over all ranks or those of a domain, with `every_shard` over any number that divides them."""

    device_counts: tuple[int, ...]
    precisions: tuple[Precision, ...]
    micro_batches: tuple[int, ...]
    offloads: tuple[Offload, ...] = OFFLOADS
    every_shard: bool = False


def make_levers(
    problem: Problem,
    *,
    precisions: tuple[Precision, ...] | None = None,
    fewer_devices: bool = False,
) -> Levers:
    """All values worth trying: the whole pool, or also a rounder number of its devices and the
    halves of both; powers of two of micro-batch; the 16-bit precision the device has. Narrower
    ones are lossy and only tried when named."""
    if precisions is None:
        precisions = (default_precision(problem),)
    devices = problem.pool.num_devices
    counts = {devices}
    if fewer_devices:
        for most in (devices, rounder_count(devices)):
            counts |= {most >> power for power in range(_HALVINGS) if most % (1 << power) == 0}
    batch = problem.workload.recipe.global_batch
    return Levers(
        device_counts=tuple(sorted(counts, reverse=True)),
        precisions=precisions,
        micro_batches=tuple(2**power for power in range(batch.bit_length())),
    )


def rounder_count(devices: int) -> int:
    """The number with most factors of two that leaves at most one device in twenty idle."""
    powers = range(devices.bit_length() - 1, -1, -1)
    whole = (devices >> power << power for power in powers)
    return next(count for count in whole if count >= _BUSY_FRACTION * devices)
