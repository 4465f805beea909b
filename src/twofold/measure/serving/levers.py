"""The levers of a serving plan, as groups of fields that are changed together."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from typing import Any

from twofold.serving_plan import SERVING_LEVER_EFFECT, ServingPlan

GROUPS: dict[str, tuple[str, ...]] = {  # few: each doubles the states that must be measured
    "continuous batching": (
        "batching",
        "max_num_seqs",
        "max_batched_tokens",
        "chunked_prefill",
    ),
    "prefix cache": ("prefix_caching",),
    "threads": ("threads",),
    "precision": ("precision", "weight_precision", "kv_precision"),
}
FIRST = "continuous batching"
"""States that are measured have it, but for the one without any lever: the others act on a batch
that it makes."""

State = frozenset[str]


def differing(before: ServingPlan, after: ServingPlan) -> tuple[str, ...]:
    """Groups in which the two plans differ."""
    return tuple(
        name
        for name, fields in GROUPS.items()
        if any(getattr(before, f) != getattr(after, f) for f in fields)
    )


def plans_between(before: ServingPlan, after: ServingPlan) -> dict[State, ServingPlan]:
    """The plan with every set of the differing levers set as in `after`."""
    levers = differing(before, after)
    return {
        frozenset(chosen): _with(before, after, chosen)
        for size in range(len(levers) + 1)
        for chosen in combinations(levers, size)
    }


def measured_states(plans: dict[State, ServingPlan]) -> list[State]:
    """Those worth a server: with `FIRST`, where it is one of the levers."""
    whole = max(plans, key=len)
    return [s for s in plans if FIRST not in whole or FIRST in s or not s]


def is_lossy(plan: ServingPlan) -> bool:
    """Whether a field that changes the function stands apart from its default."""
    default = ServingPlan()
    return any(
        getattr(plan, name) != getattr(default, name)
        for name, effect in SERVING_LEVER_EFFECT.items()
        if effect == "lossy"
    )


def _with(before: ServingPlan, after: ServingPlan, chosen: tuple[str, ...]) -> ServingPlan:
    changes: dict[str, Any] = {f: getattr(after, f) for name in chosen for f in GROUPS[name]}
    return replace(before, **changes)
