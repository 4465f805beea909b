"""The values that a search tries for each lever."""

from __future__ import annotations

from dataclasses import dataclass

from twofold.perf.fleet import Problem
from twofold.perf.plans import OFFLOADS
from twofold.plan import Offload, Precision
from twofold.search.factors import divisors, odd_part
from twofold.search.fleet_rules import default_precision

_HALVINGS = 12
_ROUND_PARTS = (1, 3, 5)
_MOST_ROUND_COUNTS = 4


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
    fewer_devices: bool | None = False,
) -> Levers:
    """All values worth trying: the whole pool, or also fewer of its devices (`device_counts`);
    powers of two of micro-batch; the 16-bit precision the device has. Narrower ones are lossy
    and only tried when named."""
    if precisions is None:
        precisions = (default_precision(problem),)
    batch = problem.workload.recipe.global_batch
    return Levers(
        device_counts=device_counts(problem.pool.num_devices, batch, fewer=fewer_devices),
        precisions=precisions,
        micro_batches=tuple(2**power for power in range(batch.bit_length())),
    )


def device_counts(devices: int, batch: int, *, fewer: bool | None) -> tuple[int, ...]:
    """Numbers of devices to try, falling: all of them, and with `fewer` smaller ones with many
    divisors too. None: only round ones just below, where all of them are too awkward a number
    to divide the batch."""
    counts = {devices}
    if fewer or (fewer is None and batch % odd_part(devices)):
        counts |= set(_round_counts(devices, batch)[:_MOST_ROUND_COUNTS])
    if fewer:
        for most in (devices, *(_largest(part, devices) for part in (1, 3))):
            counts |= {most >> power for power in range(_HALVINGS) if most % (1 << power) == 0}
    return tuple(sorted(counts - {0}, reverse=True))


def round_counts_above(devices: int, batch: int, most: int) -> list[int]:
    """Numbers with many divisors from `devices` to `most`, rising."""
    counts = {part << power for part in _parts(batch) for power in range(most.bit_length())}
    return sorted(count for count in counts if devices <= count <= most)


def _round_counts(devices: int, batch: int) -> list[int]:
    """Of each part the largest number of at most so many devices, falling."""
    counts = {_largest(part, devices) for part in _parts(batch)}
    return sorted(counts, reverse=True)


def _parts(batch: int) -> set[int]:
    """Odd parts of round numbers: small, or such that they divide the batch."""
    return {*_ROUND_PARTS, *divisors(odd_part(batch))}


def _largest(part: int, devices: int) -> int:
    """The largest `part` x a power of two of at most so many devices; 0 where there is none."""
    return part << (devices // part).bit_length() - 1 if part <= devices else 0
