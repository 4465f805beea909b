"""The serving workload that options name: a preset or a TOML file, at a rate or with users."""

from __future__ import annotations

import math
import tomllib
from dataclasses import replace
from pathlib import Path

from twofold.cli.choices import read_limit
from twofold.document import from_mapping, read_text
from twofold.errors import InputError
from twofold.units import parse_seconds
from twofold.workload.serve import Arrivals, Serve, Targets
from twofold.workload.serve_presets import serve_preset


def serve_workload(
    word: str,
    *,
    rate: float | None = None,
    users: int | None = None,
    ttft: str | None = None,
    tpot: str | None = None,
) -> Serve:
    """`word` names a preset, or a TOML file with the fields of `Serve`. The options replace what
    it says."""
    if rate is not None and not 0 < rate < math.inf:
        raise InputError(
            f"requests cannot come at a rate of {rate:g} a second",
            at="--rate",
            help="use a positive number, for example 4",
        )
    if users is not None and users < 1:
        raise InputError(f"there cannot be {users} users", at="--users", help="use 1 or more")
    ttft_s = read_limit(ttft, parse_seconds, at="--ttft")
    tpot_s = read_limit(tpot, parse_seconds, at="--tpot")
    if not word.endswith(".toml"):
        return serve_preset(word, rate_per_s=rate, users=users, ttft_s=ttft_s, tpot_s=tpot_s)
    if rate is not None and users is not None:
        raise InputError(
            "requests come at a rate or from users who wait, not both",
            at="--rate, --users",
            help="leave one out",
        )
    workload = _read(Path(word))
    if rate is not None:
        bursty = workload.arrivals.kind == "bursty"
        arrivals = replace(workload.arrivals, rate_per_s=rate) if bursty else None
        workload = replace(workload, arrivals=arrivals or Arrivals(rate_per_s=rate))
    if users is not None:
        workload = replace(workload, arrivals=Arrivals(kind="closed", users=users))
    return replace(workload, targets=_replaced(workload.targets, ttft_s, tpot_s))


def _replaced(targets: Targets, ttft_s: float | None, tpot_s: float | None) -> Targets:
    return replace(
        targets,
        ttft_s=targets.ttft_s if ttft_s is None else ttft_s,
        tpot_s=targets.tpot_s if tpot_s is None else tpot_s,
    )


def _read(path: Path) -> Serve:
    try:
        mapping = tomllib.loads(read_text(path))
    except tomllib.TOMLDecodeError as error:
        raise InputError(
            f"the file is not TOML: {error}", at=str(path), help="correct it"
        ) from error
    mapping.setdefault("name", path.stem)
    return from_mapping(mapping, Serve, at=str(path))
