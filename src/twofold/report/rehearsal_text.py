"""A rehearsal as a table: every kind of rank, what it holds and sends, and what `perf` says."""

from __future__ import annotations

from twofold.measure.rehearsal import TOLERANCE, Compared, Rehearsal
from twofold.report.table import aligned
from twofold.units import format_bytes, format_quantity

_HEADER = [
    "ranks", "blocks", "ends", "sequences", "parameters held", "sent a step", "largest error",
]  # fmt: skip


def rehearsal_text(told: Rehearsal) -> str:
    """The table, and last whether the runtime and `perf` agree."""
    rows = [_row(one) for one in told.kinds]
    unlike = (
        f"unlike their kind: ranks {', '.join(map(str, told.unlike))}"
        if told.unlike
        else f"{len(told.drawn)} ranks drawn at random are as their kind"
    )
    worst = max(one.largest_error for one in told.kinds)
    verdict = "agree" if told.agrees else "DO NOT AGREE"
    return "\n".join(
        [
            f"{told.num_ranks:,} ranks of {len(told.kinds)} kinds, one of each rehearsed (in fp32)",
            "",
            *aligned([_HEADER, *rows], left=()),
            "",
            unlike,
            f"runtime and prediction {verdict} on what every rank holds and sends: largest "
            f"difference {worst:.2%}, allowed {TOLERANCE:.1%}",
        ]
    )


def _row(one: Compared) -> list[str]:
    ends = ["first"] * one.kind.is_first + ["last"] * one.kind.is_last
    sent = ", ".join(f"{axis} {format_bytes(seen)}" for axis, (seen, _) in one.sent_bytes.items())
    return [
        f"{one.num_ranks:,}",
        str(one.kind.blocks),
        " ".join(ends) or "-",
        str(one.kind.share),
        format_quantity(one.elements[0]),
        sent or "nothing",
        f"{one.largest_error:.2%}",
    ]
