"""What forbids a verdict, whatever the ratio: an impossible rate, unlike models, a busy machine."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

from twofold.errors import InputError
from twofold.evidence.records import Arm, Evidence, Sample
from twofold.evidence.roof import roof_violations
from twofold.evidence.runs import Runs, total_s
from twofold.host import too_busy

MATCHED_WITHIN = 0.05
"""How far parameters and inference FLOP per token of two arms may differ: a smaller model is not
a faster one."""


def find_obstacles(
    evidence: Evidence, runs: Runs, arm: Arm, baseline: Arm, *, same_maths: bool
) -> tuple[str, ...]:
    """As sentences, the gravest first."""
    smoke = ["a smoke test proves nothing"] if evidence.smoke else []
    impossible = roof_violations(evidence, (arm.name, baseline.name))
    unmatched = [] if same_maths else _unmatched(arm, baseline)
    busy = _busy(evidence, [*runs.fixed(arm).values(), *runs.fixed(baseline).values()])
    too_busy_for_it = [] if busy is None else [f"the machine is too busy: {busy}"]
    return (*smoke, *impossible, *unmatched, *too_busy_for_it)


def _unmatched(arm: Arm, baseline: Arm) -> list[str]:
    sizes = (
        ("parameters", arm.num_parameters, baseline.num_parameters),
        (
            "inference FLOP per token",
            arm.inference_flop_per_token,
            baseline.inference_flop_per_token,
        ),
    )
    return [
        f"the models are not matched: {ours:.4g} {what} of '{arm.name}' against {theirs:.4g} of "
        f"'{baseline.name}' (at most {MATCHED_WITHIN:.0%} apart)"
        for what, ours, theirs in sizes
        if ours is not None and theirs is not None and abs(ours - theirs) > MATCHED_WITHIN * theirs
    ]


def _busy(evidence: Evidence, samples: Sequence[Sample]) -> str | None:
    """Judged on medians over the runs compared: one burst widens the interval, no more."""
    others = [
        sample.load_after - sample.cpu_s / total_s(sample)
        for sample in samples
        if sample.load_after is not None
    ]
    steals = [s.steal_fraction for s in samples if s.steal_fraction is not None]
    return too_busy(
        other_load=median(others) if others else None,
        cores=_usable_cores(evidence),
        steal_fraction=median(steals) if steals else None,
    )


def _usable_cores(evidence: Evidence) -> float | None:
    """`environment["host"]["cores"]["usable"]`, as `describe_host` gives it; None if not recorded.

    Raises InputError for anything else: a load that cannot be judged is not a quiet machine.
    """
    found: Any = evidence.environment
    at = "evidence, environment"
    for key in ("host", "cores", "usable"):
        if not isinstance(found, dict):
            raise InputError(f"{found!r} is not a mapping", at=at, help="prove again")
        found = found.get(key)
        at += f".{key}"
        if found is None:
            return None
    if isinstance(found, bool) or not isinstance(found, int | float):
        raise InputError(f"{found!r} is not a number of cores", at=at, help="prove again")
    return found
