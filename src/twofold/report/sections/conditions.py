"""Energy with its grade, and the machine it all happened on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from twofold.evidence.records import Arm, Evidence
from twofold.report import reading, wording
from twofold.report.blocks import (
    Section,
    absent,
    arm_name,
    heading,
    listing,
    paragraph,
    table,
)
from twofold.report.markup import Child, Markup, join, tag
from twofold.report.palette import Look

_NO_PROOF = "A modelled joule is no proof of saving"
_GRADES = {
    "measured": "read from an energy counter around each run.",
    "host-attributed": "a share of the host's counter, attributed to this job. "
    f"{_NO_PROOF}, and an attributed one only as good as its share.",
    "modelled": f"computed from busy time and coefficients. {_NO_PROOF}: with fixed coefficients "
    "its ratio only restates the ratio of busy times.",
    "unknown": f"no counter could be read and nothing is claimed. {_NO_PROOF} either.",
}
_MOST_ROWS = 120
_LONGEST_VALUE = 400


def render_energy(evidence: Evidence, look: Look) -> Section:
    grade = evidence.energy_grade
    meaning = _GRADES.get(grade, f"a grade this page does not know. {_NO_PROOF}.")
    rows = [row for arm in evidence.arms if (row := _joules(evidence, arm, look)) is not None]
    energies = (
        table(
            ["arm", "energy a run", "energy per million tokens", "mean power"],
            rows,
            name=f"Energy at the claimed length, geometric means; grade: {grade}",
        )
        if rows
        else absent("No energy was recorded for any run.")
    )
    words = paragraph("Grade: ", tag("strong", grade), f", {meaning}")
    return Section(anchor="energy", title="Energy", body=join(words, energies))


def _joules(evidence: Evidence, arm: Arm, look: Look) -> list[Child] | None:
    runs = [s for s in reading.claimed_runs(evidence, arm.name) if s.energy_j and s.train_s > 0]
    energy_j = reading.geometric_mean(s.energy_j or 0.0 for s in runs)
    token_j = reading.geometric_mean((s.energy_j or 0.0) / s.tokens for s in runs if s.tokens)
    power_w = reading.geometric_mean((s.energy_j or 0.0) / s.train_s for s in runs)
    if energy_j is None or token_j is None or power_w is None:
        return None
    return [
        arm_name(arm.name, look.colour(arm.name), look.shape(arm.name)),
        wording.quantity(energy_j, "J"),
        wording.quantity(token_j * 1e6, "J"),
        wording.quantity(power_w, "W"),
    ]


def render_environment(evidence: Evidence, look: Look) -> Section:
    """`look` is not needed: the machine has no colour."""
    rows = list(_flat(evidence.environment))
    body: list[Markup] = [
        listing(
            [
                ("created", evidence.created),
                ("Twofold", evidence.twofold_version),
                ("evidence schema", str(evidence.schema_version)),
                ("whole proof", wording.seconds(evidence.wall_s)),
                ("samples", str(len(evidence.samples))),
            ]
        ),
        heading("Load while it ran"),
        _load(evidence),
        heading("Machine and software"),
    ]
    if rows:
        body.append(listing(rows[:_MOST_ROWS]))
        if len(rows) > _MOST_ROWS:
            body.append(paragraph(f"{len(rows) - _MOST_ROWS} more entries are in evidence.json."))
    else:
        body.append(absent("The environment was not recorded."))
    return Section(anchor="environment", title="Environment", body=join(body))


def _load(evidence: Evidence) -> Markup:
    if not evidence.samples:
        return absent("No sample was taken, so there is no load to show.")
    load_before = [s.load_before for s in evidence.samples]
    load_after = [s.load_after for s in evidence.samples]
    steals = [s.steal_fraction for s in evidence.samples if s.steal_fraction is not None]
    stolen = (
        f"at most {wording.percent(max(steals))} of processor time stolen by the host"
        if steals
        else "time stolen by the host not known"
    )
    return paragraph(
        f"Load before a run {_range(load_before)}, after a run {_range(load_after)}; {stolen}. "
        "Wall time is the claim; these are diagnosis."
    )


def _range(values: Iterable[float | None]) -> str:
    known = [value for value in values if value is not None]
    return wording.span(min(known), max(known)) if known else "not known"


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Nested settings as dotted names with short values."""
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _flat(item, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list | tuple) and any(isinstance(item, dict) for item in value):
        for i, item in enumerate(value):
            yield from _flat(item, f"{name}[{i}]")
    elif name:
        yield name, _short(value, name)


def _short(value: Any, name: str) -> str:
    if value is None or value in ({}, [], ()):
        return "not known"
    if isinstance(value, list | tuple):
        value = ", ".join(str(item) for item in value)
    if isinstance(value, float):
        value = wording.digits(value)
    if isinstance(value, int) and not isinstance(value, bool) and name.endswith("_bytes"):
        value = wording.size(value)
    words = str(value)
    return words if len(words) <= _LONGEST_VALUE else words[:_LONGEST_VALUE] + "…"
