"""How to repeat the proof, how to check this one, and the hashes that tie it together."""

from __future__ import annotations

import json
from dataclasses import asdict

from twofold.document import content_hash
from twofold.evidence.records import Evidence
from twofold.report import wording
from twofold.report.blocks import Section, absent, code, folded, listing, paragraph, table
from twofold.report.markup import Child, Markup, join, tag
from twofold.report.palette import Look

_LONGEST_EXPERIMENT = 20_000


def render(evidence: Evidence, look: Look) -> Section:
    """`look` is not needed: nothing is drawn."""
    body = join(
        listing(
            [
                ("run it again", code("twofold prove EXPERIMENT")),
                ("check this one", code("twofold prove --check evidence.json")),
            ]
        ),
        paragraph(
            "The check derives every figure of this page again from the raw samples and fails on "
            "any disagreement. Hashes find corruption, not forgery: who wants to be sure repeats."
        ),
        _hashes(evidence),
        _experiment(evidence),
    )
    return Section(anchor="repeat", title="How to repeat and to check", body=body)


def _hashes(evidence: Evidence) -> Markup:
    rows: list[tuple[str, Child]] = [
        ("evidence (content)", code(content_hash(asdict(evidence)))),
        (
            "predictions",
            "none were written" if evidence.predictions_hash is None
            else code(evidence.predictions_hash),
        ),
    ]  # fmt: skip
    return join(listing(rows), _arm_hashes(evidence))


def _arm_hashes(evidence: Evidence) -> Markup | None:
    if not evidence.arms:
        return None
    rows: list[list[Child]] = [
        [wording.clip(arm.name), _hash(arm.model_hash), _hash(arm.workload_hash)]
        for arm in evidence.arms
    ]
    return table(["arm", "model", "workload"], rows, name="Hashes by arm", words={1, 2})


def _hash(value: str | None) -> Child:
    return "none (a command)" if value is None else code(value[:16])


def _experiment(evidence: Evidence) -> Markup:
    if not evidence.experiment:
        return absent("The experiment file was not recorded.")
    words = json.dumps(evidence.experiment, indent=2, ensure_ascii=False, default=str)
    if len(words) > _LONGEST_EXPERIMENT:
        words = words[:_LONGEST_EXPERIMENT] + "\n… (all of it in evidence.json)"
    block = tag("pre", tag("code", words), tabindex="0")
    return folded("The experiment as it was read", block)
