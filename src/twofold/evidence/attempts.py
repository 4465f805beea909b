"""What the ledger shows of a proof: its own entries among those of all attempts."""

from __future__ import annotations

from collections import Counter

from twofold.evidence.records import EXPLAINING_EVENTS, Evidence, LedgerEntry

Place = tuple[str, int]
"""(arm, block)."""


def own_entries(evidence: Evidence) -> list[LedgerEntry]:
    """Those since the proof was created: the ledger outlives a proof, and what an earlier one did
    or failed at shows nothing here."""
    return [entry for entry in evidence.ledger if entry.time >= evidence.created]


def count_event(evidence: Evidence, event: str) -> Counter[Place]:
    """How often the proof's own ledger names the event, by arm and block."""
    return Counter((e.arm, e.block) for e in own_entries(evidence) if e.event == event)


def explained(evidence: Evidence) -> set[Place]:
    """Where the proof's own ledger says why a run may be missing."""
    return {(e.arm, e.block) for e in own_entries(evidence) if e.event in EXPLAINING_EVENTS}


def num_other_attempts(evidence: Evidence) -> int:
    """Proofs of this experiment that were begun besides this one."""
    return max(0, sum(entry.event == "proof" for entry in evidence.ledger) - 1)


def repeated_blocks(evidence: Evidence) -> list[int]:
    """Blocks in which an arm was started more than once, after an interruption or a failure."""
    started = count_event(evidence, "started")
    return sorted({block for (_, block), times in started.items() if times > 1})


def ran_once(evidence: Evidence) -> bool:
    """Whether every arm was started exactly once in every planned block."""
    started = count_event(evidence, "started")
    arms = {arm.name for arm in evidence.arms}
    planned = [
        times
        for (arm, block), times in started.items()
        if arm in arms and 0 <= block < evidence.planned_blocks
    ]
    return set(planned) == {1} and len(planned) == len(arms) * evidence.planned_blocks
