"""How near the machine's calibrated roofs the arms run."""

from __future__ import annotations

import math
from typing import Any

from twofold.evidence.records import Arm, Evidence
from twofold.evidence.roof import ROOF_TOLERANCE, arm_precision
from twofold.report import reading, wording
from twofold.report.blocks import Section, absent, arm_name, figure, folded, heading, table
from twofold.report.figures.roofline import ArmClasses, OperatorClass, roofline_chart
from twofold.report.markup import Child, Markup, join
from twofold.report.palette import Look


def render(evidence: Evidence, look: Look) -> Section:
    body = join(
        _chart(evidence, look),
        heading("Model-FLOP utilisation"),
        _utilisation(evidence, look),
    )
    return Section(anchor="roofline", title="Roofline and utilisation", body=body)


def _chart(evidence: Evidence, look: Look) -> Markup:
    arms = [
        ArmClasses(label=arm.name, colour=look.colour(arm.name), classes=classes)
        for arm in evidence.arms
        if (classes := _classes(evidence.arm_roofline.get(arm.name, [])))
    ]
    if not arms:
        return absent(
            "No arm's operators are known (an arm that is a command has no operator table)."
        )
    roofs = {name: roof for name, roof in evidence.roof_flop_per_s.items() if roof > 0}
    words = "No roof was calibrated on this machine. " if not roofs else ""
    if not evidence.roof_bytes_per_s:
        words += "No memory bandwidth was calibrated, so the slanted roof is missing. "
    drawing = figure(
        lambda width: roofline_chart(arms, roofs, evidence.roof_bytes_per_s, width=width),
        "Predicted rate of each class of operators; the area of a disc is its share of the step. "
        "Lines are the roofs calibrated on this machine. ",
        words or None,
    )
    return join(drawing, folded("Operator classes in numbers", _class_table(arms)))


def _class_table(arms: list[ArmClasses]) -> Markup:
    rows: list[list[Child]] = [
        [
            wording.clip(arm.label),
            c.name,
            wording.digits(c.intensity),
            wording.quantity(c.flop_per_s, "flop/s"),
            wording.percent(c.time_fraction),
        ]
        for arm in arms
        for c in arm.classes
    ]
    return table(
        ["arm", "class", "flop per byte", "rate", "share of the step"],
        rows,
        name="Predicted classes of operators",
        words={1},
    )


def _classes(rows: list[dict[str, Any]]) -> tuple[OperatorClass, ...]:
    """Rows of "name", "flop", "bytes" and "time_s"; a class that lacks one cannot be placed."""
    known = [row for row in rows if all((row.get(k) or 0) > 0 for k in ("flop", "bytes", "time_s"))]
    total_s = math.fsum(row.get("time_s") or 0.0 for row in rows)
    return tuple(
        OperatorClass(
            name=str(row.get("name", "unnamed")),
            intensity=row["flop"] / row["bytes"],
            flop_per_s=row["flop"] / row["time_s"],
            time_fraction=row["time_s"] / total_s,
        )
        for row in known
    )


def _utilisation(evidence: Evidence, look: Look) -> Markup:
    if not evidence.arms:
        return absent("The experiment has no arms.")
    if not evidence.arm_flop_per_token:
        return absent(
            "No arm's FLOP per token are known (commands do not say), so there is no utilisation."
        )
    return table(
        ["arm", "tokens/s", "model FLOP per token", "model FLOP/s", "roof", "utilisation"],
        [_row(evidence, arm, look) for arm in evidence.arms],
        name="Measured model FLOP/s (no recompute counted) against the calibrated roof",
    )


def _row(evidence: Evidence, arm: Arm, look: Look) -> list[Child]:
    tokens_per_s = reading.tokens_per_s(evidence, arm.name)
    flop_per_token = evidence.arm_flop_per_token.get(arm.name)
    rate = None if not tokens_per_s or not flop_per_token else tokens_per_s * flop_per_token
    roof = _roof(evidence, arm)
    unknown = "not known"
    return [
        arm_name(arm.name, look.colour(arm.name), look.shape(arm.name)),
        unknown if tokens_per_s is None else wording.count(tokens_per_s),
        unknown if flop_per_token is None else wording.quantity(flop_per_token, "flop"),
        unknown if rate is None else wording.quantity(rate, "flop/s"),
        unknown if roof is None else f"{wording.quantity(roof[1], 'flop/s')} ({roof[0]})",
        unknown if rate is None or roof is None else _fraction(rate / roof[1]),
    ]


def _fraction(utilisation: float) -> str:
    """Above the roof nothing can run: what says so is wrong, and no percentage is printed."""
    if utilisation > 1 + ROOF_TOLERANCE:
        return "above the roof: an error to find"
    return wording.percent(min(utilisation, 1.0))


def _roof(evidence: Evidence, arm: Arm) -> tuple[str, float] | None:
    """The roof of the arm's precision; part of the work stays in fp32, so the higher of both."""
    precision = arm_precision(arm)
    roofs = evidence.roof_flop_per_s
    if precision not in roofs:
        return None
    names = [name for name in (precision, "fp32") if name in roofs]
    best = max(names, key=lambda name: roofs[name])
    return best, roofs[best]
