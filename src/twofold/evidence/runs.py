"""The samples of a proof by arm, block and length, and the pairs that can be made of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

from twofold.errors import InputError
from twofold.evidence.records import Arm, Evidence, Sample

Cost = Callable[[Sample], float]


def train_s(sample: Sample) -> float:
    return sample.train_s


def total_s(sample: Sample) -> float:
    return sample.startup_s + sample.train_s


def claim_clock(arm: Arm, baseline: Arm, *, same_maths: bool) -> Cost:
    """Training time; the whole wall time where whole runs are compared and one is a command's.

    A command's `train_s` covers only the steps that were kept, not all that it took to the loss.
    """
    by_whole_run = not same_maths and (arm.plan is None or baseline.plan is None)
    return total_s if by_whole_run else train_s


def per_token(cost: Cost) -> Cost:
    return lambda sample: cost(sample) / sample.tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Runs:
    """The samples of role `run`. `by_place` is keyed by (arm, block, length)."""

    arms: dict[str, Arm]
    by_place: dict[tuple[str, int, int], Sample]

    def arm(self, name: str) -> Arm:
        if name not in self.arms:
            raise InputError(
                f"there is no arm '{name}'",
                at="evidence, comparisons",
                help=f"use one of {', '.join(self.arms)}",
            )
        return self.arms[name]

    def fixed(self, arm: Arm) -> dict[int, Sample]:
        """The run at the length of the claim in each block, in the order of blocks."""
        return {
            block: self.by_place[name, block, length]
            for name, block, length in sorted(self.by_place)
            if name == arm.name and length == arm.fixed_length
        }

    def lengths(self, arm: Arm, block: int) -> list[Sample]:
        return [
            self.by_place[arm.name, block, length]
            for length in range(len(arm.lengths_tokens))
            if (arm.name, block, length) in self.by_place
        ]

    def blocks(self, arm: Arm) -> list[int]:
        return sorted({block for name, block, _ in self.by_place if name == arm.name})

    def ratios(self, baseline: Arm, arm: Arm, cost: Cost) -> list[tuple[int, float]]:
        """(block, cost of the baseline / cost of the arm) where both have their fixed run."""
        base, other = self.fixed(baseline), self.fixed(arm)
        return [(block, cost(base[block]) / cost(other[block])) for block in base if block in other]

    def test_losses(self, arm: Arm) -> dict[int, float]:
        """Held-out loss at the fixed length by seed, averaged where a seed ran more than once."""
        by_seed: dict[int, list[float]] = defaultdict(list)
        for sample in self.fixed(arm).values():
            if sample.test_loss is not None:
                by_seed[sample.seed].append(sample.test_loss)
        return {seed: sum(losses) / len(losses) for seed, losses in by_seed.items()}

    def loss_differences(self, arm: Arm, baseline: Arm) -> list[float]:
        """Held-out loss, arm minus baseline, one a seed that both have."""
        ours, theirs = self.test_losses(arm), self.test_losses(baseline)
        return [ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())]


def collect_runs(evidence: Evidence) -> Runs:
    """Raises InputError for a sample that names no arm or length, has no time, or comes twice."""
    arms = {arm.name: arm for arm in evidence.arms}
    by_place: dict[tuple[str, int, int], Sample] = {}
    for index, sample in enumerate(evidence.samples):
        at = f"evidence, samples.{index}"
        arm = arms.get(sample.arm)
        if arm is None or not 0 <= sample.length < len(arm.lengths_tokens):
            raise InputError(
                f"no arm '{sample.arm}' with a length of index {sample.length} is in the proof",
                at=at,
                help="the evidence is damaged; prove again",
            )
        if not (sample.train_s > 0 and sample.tokens > 0 and sample.startup_s >= 0):
            raise InputError(
                f"{sample.tokens} tokens in {sample.train_s} s after a start of "
                f"{sample.startup_s} s is not a run",
                at=at,
                help="a run that failed belongs in the ledger, not among the samples",
            )
        place = (sample.arm, sample.block, sample.length)
        if sample.role == "run" and place in by_place:
            raise InputError(
                f"'{sample.arm}' was run twice in block {sample.block} at length {sample.length}",
                at=at,
                help="every place is run once; nothing is rerun until it passes",
            )
        if sample.role == "run":
            by_place[place] = sample
    return Runs(arms=arms, by_place=by_place)
