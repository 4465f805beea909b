"""How an attempt ended, out of how its ranks did."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from twofold.launch.hosts import Host
from twofold.launch.ranks import RankEnd

Kind = Literal["done", "interrupted", "timed_out", "failed", "died"]
ERRORS, INTERRUPTED = (2, 3), 130
"""Exit codes of a rank: an error that will come again, and a run whose state is saved."""
SAVE_S = 600.0
"""A large checkpoint on a slow disk takes minutes. Who cannot wait asks a second time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptEnd:
    """`causes` are the ranks that ended before any was stopped, `lost` the machines gone."""

    kind: Kind
    causes: tuple[RankEnd, ...] = ()
    lost: tuple[Host, ...] = ()


def judge(kind: Kind, causes: Sequence[RankEnd]) -> Kind:
    """A rank that was killed is the cause whatever its peers say of the loss.

    An interrupted run that an error kept from saving has failed.
    """
    codes = {end.code for end in causes}
    if kind == "interrupted" and codes & set(ERRORS):
        return "failed"
    if kind != "done" or not causes:
        return kind
    if min(codes) < 0:
        return "died"
    if codes & set(ERRORS):
        return "failed"
    return "interrupted" if codes == {INTERRUPTED} else "died"


def describe_code(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    with suppress(ValueError):
        return signal.Signals(-code).name
    return f"signal {-code}"


def indent(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())
