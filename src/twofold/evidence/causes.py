"""Maths or recipe? The four coalitions of a comparison, found among the arms and attributed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from twofold.evidence.attribution import Values, factors, interaction
from twofold.evidence.records import Arm, Evidence, Factor
from twofold.evidence.runs import Cost, Runs, claim_clock


@dataclass(frozen=True, slots=True, kw_only=True)
class Causes:
    """Factors that multiply to the fixed ratio, and their interaction in logs; or their lack."""

    factors: list[Factor]
    interaction: float | None
    lack: str


def attribute(evidence: Evidence, runs: Runs, arm: Arm, baseline: Arm) -> Causes:
    """Shapley factors of {maths, recipe}, over the blocks of the fixed ratio.

    v(S) = ln speed-up over the baseline at fixed lengths of the arm that takes the sides S from
    `arm` and the rest from `baseline`. Withheld where a coalition misses the baseline's held-out
    loss by more than the margin: its time is then not a time to equal loss.
    """
    if arm.maths == baseline.maths or arm.recipe == baseline.recipe:
        return _none("")
    parts = {
        "maths": _find(evidence, arm.maths, baseline.recipe),
        "recipe": _find(evidence, baseline.maths, arm.recipe),
    }
    clock = claim_clock(arm, baseline, same_maths=False)
    log_ratios = {frozenset(("maths", "recipe")): _log_ratios(runs, baseline, arm, clock)}
    for cause, part in parts.items():
        if part is None:
            return _none(f"no attribution: no arm differs in the {cause} alone")
        differences = runs.loss_differences(part, baseline)
        worse = math.fsum(differences) / max(1, len(differences))
        if worse > evidence.margin:
            return _none(
                f"no attribution: '{part.name}' has a held-out loss {worse:.3g} nats above that of "
                f"'{baseline.name}', past the margin"
            )
        log_ratios[frozenset((cause,))] = _log_ratios(runs, baseline, part, clock)
    blocks = list(log_ratios[frozenset(("maths", "recipe"))])
    if not blocks or any(set(logs) != set(blocks) for logs in log_ratios.values()):
        return _none("no attribution: a coalition was not run in every block")
    values: list[Values] = [
        {frozenset(): 0.0} | {coalition: logs[block] for coalition, logs in log_ratios.items()}
        for block in blocks
    ]
    interactions = [interaction(v, "maths", "recipe") for v in values]
    return Causes(
        factors=factors(values),
        interaction=math.fsum(interactions) / len(interactions),
        lack="",
    )


def _find(evidence: Evidence, maths: str, recipe: str) -> Arm | None:
    return next((arm for arm in evidence.arms if (arm.maths, arm.recipe) == (maths, recipe)), None)


def _log_ratios(runs: Runs, baseline: Arm, arm: Arm, clock: Cost) -> Mapping[int, float]:
    return {block: math.log(ratio) for block, ratio in runs.ratios(baseline, arm, clock)}


def _none(lack: str) -> Causes:
    return Causes(factors=[], interaction=None, lack=lack)
