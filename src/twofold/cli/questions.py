"""What the planning verbs read alike: training, fleets and the date."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from twofold.catalog import Term, read_fleet, rounding_remarks
from twofold.cli.choices import read_option
from twofold.document import from_mapping, read_text
from twofold.errors import InputError
from twofold.fleet import Fleet
from twofold.model import Model
from twofold.perf.speeds import Efficiencies, fitted_efficiencies
from twofold.units import parse_count, parse_month
from twofold.workload.train import DEFAULT_RECIPE, UNSPECIFIED, Recipe, Train

_SEQ_LEN = 4096
MOST_DEVICES = 10_000_000
"""More than were ever built of any; a longer count is a slip, and its divisors take for ever."""


def run_date(text: str | None) -> str:
    """The month of the run: as stated, else this one."""
    return (
        f"{datetime.now(UTC):%Y-%m}"
        if text is None
        else read_option(text, parse_month, at="--date")
    )


def seconds_until(day: str, start: str) -> float:
    """From the start ("2026-11" is its first day) to the beginning of a day, or of a month.

    A start in this month is now.
    """
    now = datetime.now(UTC)
    end, begin = _moment(read_option(day, parse_month, at="--by")), _moment(start)
    if start == f"{now:%Y-%m}":
        begin = now
    if end <= begin:
        raise InputError(
            f"{day} is not after the start, {begin:%Y-%m-%d}",
            at="--by",
            help="name a later day, for example 2027-03-01",
        )
    return (end - begin).total_seconds()


def _moment(day: str) -> datetime:
    parts = [int(part) for part in day.split("-")]
    try:
        return datetime(parts[0], parts[1], parts[2] if len(parts) > 2 else 1, tzinfo=UTC)
    except ValueError as error:
        raise InputError(f"'{day}' is no day: {error}", at="--by", help="correct it") from error


def read_efficiencies(path: Path | None) -> Efficiencies:
    """The shipped fit, or the one that `twofold calibrate --from` wrote."""
    if path is None:
        return fitted_efficiencies()
    _read_toml(path, help="with --fleet, give the file that `twofold calibrate --from` wrote")
    return fitted_efficiencies(path)


def efficiency_notes(path: Path | None) -> list[str]:
    """Says so where other efficiencies than the shipped ones are used."""
    return [] if path is None else [f"predicted with the efficiencies of {path}"]


def _read_recipe(path: Path) -> Recipe | None:
    """The [recipe] of a model file, or None where it has none."""
    mapping = _read_toml(path, help="correct it")
    if "recipe" not in mapping:
        return None
    return from_mapping(mapping["recipe"], Recipe, at=f"{path}, recipe")


def _read_toml(path: Path, *, help: str) -> dict[str, Any]:
    try:
        return tomllib.loads(read_text(path))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError(f"the file is not TOML: {error}", at=str(path), help=help) from error


def read_fleets(
    specs: Sequence[str], *, region: str | None, term: Term
) -> tuple[list[Fleet], list[str]]:
    """A fleet of each spec, and what a reader must know of how it was understood."""
    notes = list(rounding_remarks(specs, region=region, term=term))
    fleets = [read_fleet([spec], region=region, term=term) for spec in specs]
    notes += [
        f"{pool.name}: its measured curves are for plans without --fleet, and not used here"
        for fleet in fleets
        for pool in fleet.pools
        if pool.node.accelerator.curves is not None
    ]
    for spec, fleet in zip(specs, fleets, strict=True):
        devices = max(pool.num_devices for pool in fleet.pools)
        if devices > MOST_DEVICES:
            raise InputError(
                f"'{spec}' has {devices:.3g} devices",
                at="--fleet",
                help=f"at most {MOST_DEVICES:,} are planned for: correct the count",
            )
    return fleets, notes


def workload_of(
    model: Model,
    name: str,
    *,
    tokens: str | None,
    seq_len: int | None,
    global_batch: int | None,
    text: str | None,
    any_tokens: bool = False,
) -> tuple[Train, list[str]]:
    """The training that is asked for, and what a reader must know of it.

    `any_tokens`: how many is the answer, so that they need not be said.
    """
    if tokens is None and not any_tokens:
        raise InputError(
            "how long to train is not said", at="--tokens", help="for example --tokens 2T"
        )
    recipe = _read_recipe(Path(name)) if name.endswith(".toml") else None
    if global_batch is None and recipe is None:
        raise InputError(
            "the sequences of an optimizer step are not said",
            at="--global-batch",
            help="for example --global-batch 1024",
        )
    recipe = recipe or DEFAULT_RECIPE
    if global_batch is not None:
        recipe = replace(recipe, global_batch=global_batch)
    notes = []
    if model.operators:
        if seq_len not in (None, 1):
            raise InputError(
                f"'{model.name}' has no sequences: a token of it is a whole sample",
                at="--seq-len",
                help="leave it out",
            )
        seq_len = 1
    elif seq_len is None:
        seq_len = min(model.max_seq_len, _SEQ_LEN)
        notes.append(f"sequences of {seq_len:,} tokens, since --seq-len was not given")
    _check_length(model, seq_len, notes)
    count = seq_len * recipe.global_batch
    if tokens is not None:
        count = read_option(tokens, parse_count, at="--tokens")
    train = Train(text=text or UNSPECIFIED, tokens=count, seq_len=seq_len, recipe=recipe)
    return train, notes


def _check_length(model: Model, seq_len: int, notes: list[str]) -> None:
    if model.operators or seq_len <= model.max_seq_len:
        return
    if model.position == "learned":
        raise InputError(
            f"sequences of {seq_len} tokens are longer than the {model.max_seq_len} learned "
            f"positions of '{model.name}'",
            at="--seq-len",
            help=f"use at most {model.max_seq_len}",
        )
    notes.append(
        f"sequences are longer than the {model.max_seq_len:,} tokens '{model.name}' is for"
    )
