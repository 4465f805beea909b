"""The form of a catalog file and how it is read: entries, figures, and which figure is believed.

A file describes one accelerator, node (machine) or link (fabric). Settings are words and counts;
every number with a unit is a figure, written

    [figures]
    flop_per_s.bf16 = { value = 989e12, unit = "FLOP/s", basis = "datasheet", source = "nv" }

or as a list of such tables where sources disagree. `source` names a key of `[sources]`, or is
the text itself. In a user's own file a bare number will do: it is that user's figure. Values are
in SI base units, rates dense (never with sparsity), bandwidths one way and per device.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from twofold.catalog.vocabulary import (
    CHOICES,
    ENVELOPE,
    FIGURE_ATTRIBUTES,
    FIGURE_UNITS,
    SCHEMA_VERSION,
    SETTING_TYPES,
    EntryKind,
)
from twofold.errors import InputError
from twofold.figure import PRECEDENCE, Figure


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A figure that some file gives. `origin` is that file, `layer` its rank among the folders
    (0 is the packaged one). `product_of` are factors whose product the value should be."""

    figure: Figure
    origin: str
    layer: int = 0
    product_of: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What the files say of one accelerator, node or link. The first candidate of each key is
    the one believed: `PRECEDENCE` of its basis first, then the file nearest to the user."""

    kind: EntryKind
    id: str
    aliases: tuple[str, ...]
    settings: dict[str, Any]
    figures: dict[str, tuple[Candidate, ...]]
    origins: tuple[str, ...]

    def figure(self, key: str) -> Figure | None:
        """The figure believed, or None where it is unknown."""
        candidates = self.figures.get(key)
        return candidates[0].figure if candidates else None


def read_entry(mapping: Mapping[str, Any], kind: EntryKind, *, origin: str, layer: int) -> Entry:
    """The entry that a decoded file gives; InputError names file, key and rule."""
    check_schema(mapping, origin)
    name = mapping.get("id")
    if not isinstance(name, str) or not name:
        raise InputError(
            "the file has no `id`", at=f"{origin}, id", help='write for instance id = "my-gpu"'
        )
    aliases = mapping.get("aliases", [])
    if not isinstance(aliases, list) or not all(isinstance(alias, str) for alias in aliases):
        raise InputError("aliases are a list of names", at=f"{origin}, aliases", help="correct it")
    body = {key: value for key, value in mapping.items() if key not in ENVELOPE}
    sources = read_sources(mapping, origin)
    own = read_table(mapping, "figures", origin)
    return Entry(
        kind=kind,
        id=name,
        aliases=tuple(aliases),
        settings=read_settings(body, kind, origin=origin),
        figures=read_figures(own, kind, origin=origin, layer=layer, sources=sources),
        origins=(origin,),
    )


def read_table(mapping: Mapping[str, Any], key: str, origin: str) -> Mapping[str, Any]:
    """The table of that key, empty where there is none. InputError: it is no table."""
    table = mapping.get(key, {})
    if not isinstance(table, Mapping):
        raise InputError(
            f"`{key}` is not a table", at=f"{origin}, {key}", help=f"write it as [{key}]"
        )
    return table


def read_rows(mapping: Mapping[str, Any], key: str, origin: str) -> list[dict[str, Any]]:
    """The rows `[[key]]`, none where there are none. InputError: they are no tables."""
    rows = mapping.get(key, [])
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InputError(
            f"`{key}` is not a list of tables", at=f"{origin}, {key}", help=f"write [[{key}]]"
        )
    return rows


def read_sources(mapping: Mapping[str, Any], origin: str) -> dict[str, str]:
    """The texts of `[sources]` by key."""
    sources = read_table(mapping, "sources", origin)
    if not all(isinstance(text, str) for text in sources.values()):
        raise InputError(
            "`sources` is not a table of texts", at=f"{origin}, sources", help="correct it"
        )
    return {str(key): text for key, text in sources.items()}


def check_schema(mapping: Mapping[str, Any], origin: str) -> None:
    if mapping.get("schema", SCHEMA_VERSION) != SCHEMA_VERSION:
        raise InputError(
            f"schema {mapping['schema']!r} is not {SCHEMA_VERSION}",
            at=f"{origin}, schema",
            help="use the form of this version of Twofold",
        )


def read_settings(mapping: Mapping[str, Any], kind: EntryKind, *, origin: str) -> dict[str, Any]:
    """The words and counts of an entry, checked against the vocabulary."""
    types = SETTING_TYPES[kind]
    settings: dict[str, Any] = {}
    for key, value in _flatten(mapping):
        at = f"{origin}, {key}"
        if key not in types:
            raise unknown_key(key, [*types, *ENVELOPE], at)
        right = isinstance(value, types[key]) and isinstance(value, bool) == (types[key] is bool)
        if not right:
            raise InputError(
                f"{value!r} is not of type {types[key].__name__}", at=at, help="correct it"
            )
        choices = CHOICES.get(key.rpartition(".")[2])
        if choices and value not in choices:
            raise InputError(f"'{value}' is not known", at=at, help="use " + ", ".join(choices))
        if types[key] is int and value < 1:
            raise InputError(f"{value} is not a positive count", at=at, help="correct it")
        settings[key] = value
    return settings


def read_figures(
    mapping: Mapping[str, Any],
    kind: EntryKind,
    *,
    origin: str,
    layer: int,
    sources: Mapping[str, str] | None = None,
) -> dict[str, tuple[Candidate, ...]]:
    """The figures of a table with dotted keys, every one checked."""
    units = FIGURE_UNITS[kind]
    figures: dict[str, tuple[Candidate, ...]] = {}
    for key, value in _flatten(mapping):
        at = f"{origin}, {key}"
        if key not in units:
            raise unknown_key(key, units, at)
        items = value if isinstance(value, list) else [value]
        figures[key] = tuple(
            Candidate(
                figure=read_figure(item, unit=units[key], at=at, sources=sources),
                origin=origin,
                layer=layer,
                product_of=_factors(item, at),
            )
            for item in items
        )
    return figures


def read_figure(
    value: Any, *, unit: str, at: str, sources: Mapping[str, str] | None = None
) -> Figure:
    """One figure: a table, or a bare number that is then the user's own word."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return Figure(value=_number(value, at), unit=unit, basis="user", source=at, date="undated")
    if not isinstance(value, Mapping):
        raise InputError(
            f"{value!r} is not a figure",
            at=at,
            help=f'write {{ value = 1.0, unit = "{unit}", basis = "user", source = "..." }}',
        )
    for key in value:
        if key not in FIGURE_ATTRIBUTES:
            raise unknown_key(str(key), FIGURE_ATTRIBUTES, at)
    for key in ("value", "basis", "source"):
        if not value.get(key) and value.get(key) != 0:
            raise InputError(f"the figure has no `{key}`", at=at, help="every figure has one")
    if value.get("unit", unit) != unit:
        raise InputError(
            f"the unit '{value['unit']}' is not '{unit}'",
            at=at,
            help="figures are in SI base units, without prefixes",
        )
    if value["basis"] not in PRECEDENCE:
        raise InputError(
            f"'{value['basis']}' is not a basis", at=at, help="use " + ", ".join(PRECEDENCE)
        )
    source = str(value["source"])
    text = (sources or {}).get(source, source)
    note = value.get("note")
    spread = value.get("spread")
    return Figure(
        value=_number(value["value"], at),
        unit=unit,
        basis=value["basis"],
        source=f"{text} ({note})" if note else text,
        date=str(value.get("date", "undated")),
        spread=None if spread is None else _number(spread, at),
    )


def merge(first: Entry, second: Entry) -> Entry:
    """Two files of the same entry, figure by figure; `second` is nearer to the user."""
    keys = dict.fromkeys([*first.figures, *second.figures])
    return Entry(
        kind=first.kind,
        id=first.id,
        aliases=tuple(dict.fromkeys([*first.aliases, *second.aliases])),
        settings={**first.settings, **second.settings},
        figures={
            key: rank([*first.figures.get(key, ()), *second.figures.get(key, ())]) for key in keys
        },
        origins=(*first.origins, *second.origins),
    )


def rank(candidates: Iterable[Candidate]) -> tuple[Candidate, ...]:
    """Best first: by basis, then the file nearest to the user, then as written."""
    return tuple(
        sorted(candidates, key=lambda one: (PRECEDENCE.index(one.figure.basis), -one.layer))
    )


def unknown_key(key: str, known: Iterable[str], at: str) -> InputError:
    known = list(known)
    near = difflib.get_close_matches(key, known, n=1)
    return InputError(
        f"there is no key '{key}'",
        at=at,
        help=f"perhaps '{near[0]}' is meant" if near else "use one of " + ", ".join(known[:12]),
    )


def _flatten(mapping: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Nested tables as dotted keys; a table with a `value` is a figure, so a leaf."""
    pairs: list[tuple[str, Any]] = []
    for key, value in mapping.items():
        if isinstance(value, Mapping) and "value" not in value:
            pairs += _flatten(value, f"{prefix}{key}.")
        else:
            pairs.append((f"{prefix}{key}", value))
    return pairs


def _factors(value: Any, at: str) -> tuple[float, ...]:
    if not isinstance(value, Mapping) or "product_of" not in value:
        return ()
    factors = value["product_of"]
    if not isinstance(factors, list):
        raise InputError("`product_of` is not a list of numbers", at=at, help="correct it")
    return tuple(_number(factor, at) for factor in factors)


def _number(value: Any, at: str) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise InputError(f"{value!r} is not a number", at=at, help="correct it")
    if not math.isfinite(value) or value < 0:
        raise InputError(
            f"{value} is not a finite, non-negative number",
            at=at,
            help="correct it, or leave the figure out: a missing one is refused where needed",
        )
    return float(value)
