"""What the result does not say, and every attempt that came to nothing."""

from __future__ import annotations

from collections import Counter

from twofold.evidence.attempts import num_other_attempts, ran_once, repeated_blocks
from twofold.evidence.records import EXPLAINING_EVENTS, Evidence, LedgerEntry
from twofold.report import wording
from twofold.report.blocks import Section, absent, bullets, folded, heading, paragraph, table
from twofold.report.markup import Markup, join, tag
from twofold.report.palette import Look

_VERDICTS = ("proven", "not proven", "no verdict")
_LONGEST_DETAIL = 300
_DETAIL_BUDGET = 60_000
"""Characters for the details of all lost attempts: every one is listed, however many they are."""
_MOST_ROWS = 100


def render(evidence: Evidence, look: Look) -> Section:
    """`look` is not needed: nothing is drawn."""
    threats = (
        bullets(evidence.threats)
        if evidence.threats
        else absent("The evidence lists no threats to validity, which is itself a reason to doubt.")
    )
    body = join(
        threats,
        heading("Attempts that came to nothing"),
        _attempts(evidence),
        _history(evidence.ledger),
    )
    return Section(anchor="limits", title="What the result does not say", body=body)


def _attempts(evidence: Evidence) -> Markup:
    lost = [entry for entry in evidence.ledger if entry.event in EXPLAINING_EVENTS]
    blocks = {s.block for s in evidence.samples if s.role == "run"}
    planned = paragraph(
        f"{wording.plural(evidence.planned_blocks, 'block')} planned, {len(blocks)} measured."
    )
    if not evidence.ledger:
        return join(planned, absent("The ledger is empty: attempts were not recorded."))
    planned = join(planned, paragraph(f"{_others(evidence)} {_repeats(evidence)}"))
    if not lost:
        body: Markup = absent("No attempt failed, was aborted, refused or skipped.")
    else:
        counts = Counter(entry.event for entry in lost)
        body = join(
            paragraph(", ".join(f"{number} {event}" for event, number in counts.items()) + "."),
            _table(lost, "Failed, aborted, refused and skipped attempts, all of them"),
        )
    return join(planned, body)


def _others(evidence: Evidence) -> str:
    number = num_other_attempts(evidence)
    if not number:
        return "The ledger shows no other attempt of this experiment."
    return f"The ledger shows {wording.plural(number, 'other attempt')} of this experiment."


def _repeats(evidence: Evidence) -> str:
    again = repeated_blocks(evidence)
    if again:
        which = ", ".join(map(str, again[:_MOST_ROWS]))
        return (
            f"{wording.plural(len(again), 'block')} ran again after an interruption or a failure: "
            f"{which}."
        )
    if ran_once(evidence):
        return "Every block ran once."
    return "The ledger does not show every arm started in every block."


def _history(ledger: list[LedgerEntry]) -> Markup | None:
    """Earlier proofs of the same experiment: one that was tried until it passed is seen here."""
    if not ledger:
        return None
    verdicts = [entry for entry in ledger if entry.event in _VERDICTS]
    earlier = (
        _table(verdicts, "Verdicts of earlier proofs of this experiment")
        if verdicts
        else absent("The ledger holds no earlier proof of this experiment.")
    )
    return join(heading("Earlier verdicts"), earlier, _whole(ledger))


def _whole(ledger: list[LedgerEntry]) -> Markup:
    rest = len(ledger) - _MOST_ROWS
    more = paragraph(f"{rest} later entries are in evidence.json.") if rest > 0 else None
    return folded(
        f"The whole ledger: {len(ledger)} entries",
        _table(ledger[:_MOST_ROWS], "Every attempt in order"),
        more,
    )


def _table(entries: list[LedgerEntry], name: str) -> Markup:
    longest = max(40, min(_LONGEST_DETAIL, _DETAIL_BUDGET // max(len(entries), 1)))
    return table(
        ["when", "event", "arm", "block", "seed", "detail"],
        [
            [
                _moment(e.time),
                e.event,
                wording.clip(e.arm),
                _index(e.block),
                _index(e.seed),
                _shortened(e.detail, longest),
            ]
            for e in entries
        ],
        name=name,
        words={1, 2, 5},
    )


def _index(value: int) -> str:
    """Blocks and seeds below zero stand for "of no block"."""
    return str(value) if value >= 0 else ""


def _moment(iso: str) -> Markup:
    return tag("span", iso[:19].replace("T", " "), class_="moment")


def _shortened(words: str, longest: int) -> str:
    if len(words) <= longest:
        return words
    return words[:longest].rstrip() + "… (all of it in evidence.json)"
