"""The ledger of an experiment: every attempt is appended, nothing is ever taken out.

It lies beside the proofs of the experiment and goes whole into each evidence file, so that a
result that was tried until it passed can be seen to be one.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from twofold.document import from_mapping
from twofold.errors import EnvironmentLack
from twofold.evidence.records import LedgerEntry


class Ledger:
    """Appends to one file; a torn last line (a crash while writing) is left out on reading."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(
        self, event: str, detail: str, *, arm: str = "", block: int = -1, seed: int = -1
    ) -> None:
        entry = LedgerEntry(
            time=datetime.now(UTC).isoformat(timespec="seconds"),
            event=event,
            arm=arm,
            block=block,
            seed=seed,
            detail=detail,
        )
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(asdict(entry)) + "\n")
        except OSError as error:
            raise EnvironmentLack(
                f"the ledger cannot be written: {error.strerror}",
                at=str(self.path),
                help="check free space and permission",
            ) from error

    def entries(self) -> list[LedgerEntry]:
        if not self.path.exists():
            return []
        entries = []
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                mapping = json.loads(line)
            except ValueError:
                continue
            entries.append(from_mapping(mapping, LedgerEntry, at=str(self.path)))
        return entries
