"""Equal answers: greedy decoding token for token, or a near tie where they first part."""

from __future__ import annotations

import math
from collections.abc import Sequence

from twofold.evidence.serving.records import ServingArm, ServingEvidence, ServingQuality, Transcript
from twofold.evidence.statistics import upper_bound


def compare_answers(
    evidence: ServingEvidence, arm: ServingArm, baseline: ServingArm
) -> ServingQuality | None:
    """None where no prompt was answered by both."""
    ours, theirs = (_transcripts(evidence, side.name) for side in (arm, baseline))
    shared = sorted(ours.keys() & theirs.keys())
    if not shared:
        return None
    partings = [parting(ours[prompt], theirs[prompt]) for prompt in shared]
    gaps = [p.gap for p in partings if p is not None]
    unexplained = [g for g in gaps if g is None or g > evidence.epsilon]
    known = [g for g in gaps if g is not None]
    difference, upper = _loss(evidence, arm, baseline)
    reason = _reason(evidence, len(shared), len(gaps), unexplained, arm, difference, upper)
    return ServingQuality(
        num_prompts=len(shared),
        num_tokens=sum(len(theirs[prompt].tokens) for prompt in shared),
        num_equal=len(shared) - len(gaps),
        num_near_ties=len(gaps) - len(unexplained),
        widest_gap=max(known) if known else None,
        epsilon=evidence.epsilon,
        loss_difference=difference,
        loss_upper=upper,
        margin=evidence.margin,
        passed=_passed(evidence, arm, unexplained, upper),
        reason=reason,
    )


class Parting:
    """Where two answers first differ, and the wider of the two arms' gaps there (None: not
    told, or one is the beginning of the other)."""

    __slots__ = ("gap", "place")

    def __init__(self, place: int, gap: float | None) -> None:
        self.place, self.gap = place, gap


def parting(ours: Transcript, theirs: Transcript) -> Parting | None:
    """None where they are equal."""
    for place, (a, b) in enumerate(zip(ours.tokens, theirs.tokens, strict=False)):
        if a != b:
            if place >= len(ours.gaps) or place >= len(theirs.gaps):
                return Parting(place, None)
            return Parting(place, max(ours.gaps[place], theirs.gaps[place]))
    if len(ours.tokens) != len(theirs.tokens):
        return Parting(min(len(ours.tokens), len(theirs.tokens)), None)
    return None


def _transcripts(evidence: ServingEvidence, arm: str) -> dict[int, Transcript]:
    return {t.prompt: t for t in evidence.transcripts if t.arm == arm}


def _loss(
    evidence: ServingEvidence, arm: ServingArm, baseline: ServingArm
) -> tuple[float | None, float | None]:
    ours, theirs = (evidence.held_out.get(side.name, []) for side in (arm, baseline))
    differences = [a - b for a, b in zip(ours, theirs, strict=False)]
    if not differences:
        return None, None
    return math.fsum(differences) / len(differences), upper_bound(differences)


def _passed(
    evidence: ServingEvidence,
    arm: ServingArm,
    unexplained: Sequence[float | None],
    upper: float | None,
) -> bool:
    """A lossy plan is another function and is judged by its held-out loss alone; any other must
    give equal answers, and no worse a loss where one was taken."""
    if arm.lossy:
        return upper is not None and upper <= evidence.margin
    return not unexplained and (upper is None or upper <= evidence.margin)


def _reason(
    evidence: ServingEvidence,
    num: int,
    num_parted: int,
    unexplained: Sequence[float | None],
    arm: ServingArm,
    difference: float | None,
    upper: float | None,
) -> str:
    words = f"{num - num_parted} of {num} greedy answers equal token for token"
    if num_parted:
        words += (
            f", {num_parted - len(unexplained)} part at a near tie (within "
            f"{evidence.epsilon:g}), {len(unexplained)} elsewhere"
        )
    if difference is not None:
        bound = "unknown" if upper is None else f"{upper:+.2g}"
        words += (
            f"; held-out loss {difference:+.2g} nats per token (upper bound {bound}, margin "
            f"{evidence.margin:g})"
        )
    elif arm.lossy:
        words += "; a lossy plan, and no held-out loss was taken"
    return words
