"""The verbs that look things up: what a model or a fleet is, what the catalog holds and why."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated

import tyro

from twofold.cli.choices import choose, term_of
from twofold.cli.output import answer
from twofold.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Inspect:
    """What is known of a model (parameters, FLOP, operators) or of a fleet (every figure)."""

    name: tyro.conf.Positional[str]
    """A model or a fleet, as `plan` takes them."""
    seq_len: int | None = None
    """Sequence length for a model's FLOP; unless said the model's, at most 4096."""
    region: str | None = None
    """Where a fleet is."""
    term: str = "on-demand"
    """How a fleet is rented."""
    json: bool = False
    """Print one JSON document."""

    def execute(self) -> int:
        from twofold.cli.importing import imported_model
        from twofold.cli.inspection import find_subject
        from twofold.fleet import Fleet
        from twofold.model.description import describe_model
        from twofold.report.catalog_text import fleet_text, model_text
        from twofold.report.import_text import import_lines, import_mapping

        if self.seq_len is not None and self.seq_len < 1:
            raise InputError(
                f"seq_len is {self.seq_len}", at="--seq-len", help="use at least 1 token"
            )
        imported = imported_model(self.name)
        if imported is not None:
            described = describe_model(imported.model, self.seq_len) | {"plan_as": self.name}
            if self.json:
                answer(described | {"imported": import_mapping(imported)})
            else:
                answer("\n".join([*import_lines(imported), "", model_text(described)]))
            return 0
        subject = find_subject(self.name, region=self.region, term=term_of(self.term))
        if isinstance(subject, Fleet):
            answer(asdict(subject) if self.json else fleet_text(subject))
        else:
            described = describe_model(subject, self.seq_len) | {"plan_as": self.name}
            answer(described if self.json else model_text(described))
        return 0


_KINDS = ("accelerator", "node", "link", "model", "region")


@dataclass(frozen=True, kw_only=True)
class CatalogList:
    """What there is: accelerators, nodes (machines), links, models, regions."""

    kind: tyro.conf.Positional[str | None] = None
    """accelerator, node, link, model or region; all but regions unless said."""
    json: bool = False
    """Print one JSON document."""

    def execute(self) -> int:
        from twofold.cli.inspection import list_catalog
        from twofold.report.catalog_text import listing_text

        kinds: tuple[str, ...] = _KINDS[:-1]
        if self.kind is not None:
            # People say the plural, and "machine" for a node.
            word = {"machine": "node", "machines": "node"}.get(self.kind.lower(), self.kind)
            single = word[:-1] if word.lower()[:-1] in _KINDS else word
            kinds = (choose(single, _KINDS, at="catalog list"),)
        entries = list_catalog(kinds)
        answer(entries if self.json else listing_text(entries))
        return 0


@dataclass(frozen=True, kw_only=True)
class CatalogShow:
    """All that is known of one thing; with --why the source of every figure and what it beat."""

    name: tyro.conf.Positional[str]
    """An accelerator, machine, link or model, by id or alias."""
    why: bool = False
    """Say for each figure where it comes from, and what else was said."""
    json: bool = False
    """Print one JSON document."""

    def execute(self) -> int:
        from twofold.catalog import describe
        from twofold.cli.inspection import is_model
        from twofold.model.description import describe_model
        from twofold.report.catalog_text import description_text, model_text
        from twofold.sources.models import find_model

        if is_model(self.name):
            described = describe_model(find_model(self.name))
            answer(described if self.json else model_text(described))
            return 0
        description = describe(self.name)
        answer(asdict(description) if self.json else description_text(description, why=self.why))
        return 0


@dataclass(frozen=True, kw_only=True)
class Catalog:
    """Look up what is known of hardware and models, figure by figure."""

    verb: (
        Annotated[CatalogList, tyro.conf.subcommand("list")]
        | Annotated[CatalogShow, tyro.conf.subcommand("show")]
    )

    def execute(self) -> int:
        return self.verb.execute()
