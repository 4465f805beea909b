"""What unlike devices can gain at best, from their speeds alone: no link, no memory, no rounding.

Most published factors are over the even split; a user with half a choice leaves the slow devices
out. Both factors are told, always.
"""

from __future__ import annotations

from collections.abc import Sequence


def even_split_gain(speeds: Sequence[float]) -> float:
    """mean(s) / min(s): over equal shares on all devices, where all wait for the slowest."""
    return sum(speeds) / len(speeds) / min(speeds)


def best_subset_gain(speeds: Sequence[float]) -> float:
    """sum(s) / max_k (k s_(k)), s_(1) >= s_(2) ..: over equal shares on the k fastest devices,
    for the best k."""
    ordered = sorted(speeds, reverse=True)
    return sum(speeds) / max(place * speed for place, speed in enumerate(ordered, start=1))
