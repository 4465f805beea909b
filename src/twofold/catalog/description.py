"""What the catalog holds, figure by figure, with where each comes from and what it beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from twofold.catalog import layers
from twofold.catalog.form import Candidate, Entry
from twofold.catalog.lookup import accelerator_entry, machine_entry, node_entry
from twofold.catalog.prices import Price, all_prices
from twofold.catalog.vocabulary import FIGURE_UNITS, EntryKind
from twofold.errors import InputError
from twofold.figure import Figure


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """One line of `catalog list`."""

    kind: EntryKind
    id: str
    vendor: str
    status: str
    aliases: tuple[str, ...]
    summary: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FigureOrigin:
    """A figure with its rivals. `figure` is None where nobody gives it: it is unknown."""

    key: str
    unit: str
    figure: Figure | None
    origin: str | None
    losers: tuple[Candidate, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """`catalog show NAME`: words and counts, every figure of the vocabulary, rent prices."""

    kind: EntryKind
    id: str
    aliases: tuple[str, ...]
    settings: dict[str, Any]
    figures: tuple[FigureOrigin, ...]
    prices: tuple[Price, ...]
    origins: tuple[str, ...]


def list_entries(kind: EntryKind | None = None) -> list[Listing]:
    """What there is, of one kind or of all, sorted by id."""
    kinds: tuple[EntryKind, ...] = ("accelerator", "node", "link") if kind is None else (kind,)
    return [_listing(entry) for each in kinds for _, entry in sorted(layers.entries(each).items())]


def describe(name: str) -> Description:
    """All that is known of an accelerator, machine or fabric. InputError: no such name."""
    entry = _any_entry(name)
    return Description(
        kind=entry.kind,
        id=entry.id,
        aliases=entry.aliases,
        settings=dict(entry.settings),
        figures=tuple(_origin(entry, key) for key in FIGURE_UNITS[entry.kind]),
        prices=tuple(p for p in all_prices() if entry.id in (p.machine, p.accelerator)),
        origins=entry.origins,
    )


def why(name: str) -> tuple[FigureOrigin, ...]:
    """The figures that some file gives, each with the winner's file and the losers."""
    return tuple(origin for origin in describe(name).figures if origin.figure is not None)


def _any_entry(name: str) -> Entry:
    link = layers.entry("link", name)
    if link is not None:
        return link
    node = node_entry(name)
    if node is not None:
        return node
    try:
        return accelerator_entry(name)
    except InputError:
        machine_entry(name)  # refuses with the nearest of machines and accelerators alike
        raise


def _origin(entry: Entry, key: str) -> FigureOrigin:
    candidates = entry.figures.get(key, ())
    winner = candidates[0] if candidates else None
    return FigureOrigin(
        key=key,
        unit=FIGURE_UNITS[entry.kind][key],
        figure=winner.figure if winner else None,
        origin=winner.origin if winner else None,
        losers=candidates[1:],
    )


def _listing(entry: Entry) -> Listing:
    settings = entry.settings
    return Listing(
        kind=entry.kind,
        id=entry.id,
        vendor=str(settings.get("vendor") or settings.get("provider") or ""),
        status=str(settings.get("status", "")),
        aliases=entry.aliases,
        summary=_summary(entry),
    )


def _summary(entry: Entry) -> str:
    if entry.kind == "node":
        devices = entry.settings.get("devices", 1)
        return f"{devices} x {entry.settings.get('accelerator', '?')}"
    if entry.kind == "link":
        return str(entry.settings.get("title", ""))
    rates = [
        f"{key.removeprefix('flop_per_s.')} {candidates[0].figure.value / 1e12:.4g} TFLOP/s"
        for key, candidates in entry.figures.items()
        if key in ("flop_per_s.bf16", "flop_per_s.fp16", "flop_per_s.fp8", "flop_per_s.fp32")
    ]
    memory = entry.figure("memory.usable_bytes")
    return ", ".join([*rates[:1], *([f"{memory.value / 1e9:.4g} GB"] if memory else [])])
