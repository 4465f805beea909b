"""The report: one HTML file that needs nothing but itself."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files
from pathlib import Path

from twofold.document import write_text
from twofold.evidence.records import Evidence
from twofold.report import wording
from twofold.report.blocks import Section
from twofold.report.markup import Markup, tag, trusted
from twofold.report.palette import css_classes, css_variables, look_of
from twofold.report.sections import (
    causes,
    claim,
    conditions,
    learning,
    limits,
    pairs,
    parts,
    predictions,
    quality,
    repeat,
    roofline,
    tuning,
)

_SECTIONS = (
    claim.render,
    causes.render,
    learning.render,
    predictions.render,
    pairs.render,
    parts.render_memory,
    roofline.render,
    quality.render,
    tuning.render,
    conditions.render_energy,
    conditions.render_environment,
    limits.render,
    repeat.render,
)


def write_report(evidence: Evidence, path: Path) -> None:
    """Write the page, or replace it whole. Raises EnvironmentLack where it cannot be written."""
    write_text(path, render_page(evidence))


def render_page(evidence: Evidence) -> str:
    look = look_of(evidence)
    return assemble(
        f"{evidence.name}{' (smoke test)' if evidence.smoke else ''} · Twofold",
        _header(evidence),
        [render(evidence, look) for render in _SECTIONS],
        smoke=evidence.smoke,
    )


def assemble(title: str, header: Markup, sections: list[Section], *, smoke: bool) -> str:
    """The whole file: head, the list of contents, the sections in order."""
    style = css_variables() + css_classes() + _own("page.css")
    script = _own("page.js")
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_policy(style, script)),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("style", trusted(style)),
    )
    body = tag(
        "body",
        tag("a", "Skip to the claim", href="#claim", class_="skip"),
        header,
        _smoke_banner() if smoke else None,
        tag(
            "div",
            _contents(sections),
            tag("main", [_section(s, i) for i, s in enumerate(sections, start=1)]),
            class_="columns",
        ),
        tag("script", trusted(script)),
    )
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


def page_header(name: str, facts: list[str], *, over: str = "Twofold proof") -> Markup:
    return tag(
        "header",
        tag("p", over, class_="over"),
        tag("h1", name),
        tag("p", " · ".join(facts), class_="facts"),
        tag("button", "Light / dark", type="button", id="theme", hidden=""),
    )


def _header(evidence: Evidence) -> Markup:
    facts = [
        wording.moment(evidence.created),
        f"Twofold {evidence.twofold_version}",
        wording.plural(len(evidence.samples), "run"),
        f"{wording.seconds(evidence.wall_s)} in all",
    ]
    return page_header(evidence.name, facts)


def _smoke_banner() -> Markup:
    return tag(
        "p",
        tag("strong", "Smoke test, not evidence."),
        " It shows that the proof runs from end to end. Its runs are too few and too short to "
        "say anything about speed.",
        class_="banner",
        role="note",
    )


def _contents(sections: list[Section]) -> Markup:
    links = [tag("li", tag("a", s.title, href=f"#{s.anchor}")) for s in sections]
    return tag("nav", tag("ol", links), aria_label="Sections")


def _section(section: Section, place: int) -> Markup:
    name = f"{section.anchor}-title"
    heading = tag("h2", tag("span", str(place), class_="place"), section.title, id=name)
    return tag("section", heading, section.body, id=section.anchor, aria_labelledby=name)


def _policy(style: str, script: str) -> str:
    """Nothing is loaded from anywhere, and only our own style and script are obeyed."""
    return (
        "default-src 'none'; "
        f"style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _own(name: str) -> str:
    return files("twofold.report").joinpath(name).read_text(encoding="utf-8")
