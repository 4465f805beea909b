"""Predicted against measured: step time, memory, tokens to the target, and the order of plans."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from twofold.evidence.records import Arm, Evidence
from twofold.report import reading, wording
from twofold.report.blocks import (
    Section,
    absent,
    arm_name,
    code,
    figure,
    paragraph,
    table,
)
from twofold.report.figures.scatter import BAND, Panel, Point, scatter_chart
from twofold.report.markup import Child, Markup, join
from twofold.report.palette import Look
from twofold.report.sections.orders import arm_order, finals
from twofold.report.sections.parts import step_parts


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantity:
    """One predicted quantity. `unit` and `scale` are those of its axis."""

    title: str
    unit: str
    scale: float
    form: Callable[[float], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A prediction beside what was measured, which may be unknown."""

    arm: str
    quantity: Quantity
    predicted: float
    low: float | None
    high: float | None
    measured: float | None

    @property
    def error_fraction(self) -> float | None:
        return None if not self.measured else self.predicted / self.measured - 1


_STEP = Quantity(title="Step time", unit="ms", scale=1e-3, form=wording.seconds)
_MEMORY = Quantity(title="Peak memory", unit="MiB", scale=2.0**20, form=wording.size)
_TOKENS = Quantity(
    title="Tokens to target", unit="k tokens", scale=1e3, form=lambda v: wording.count(v, "tokens")
)


_BAND = f"{100 * BAND:g}{wording.SPACE}%"


def render(evidence: Evidence, look: Look) -> Section:
    judged = [row for arm in evidence.arms for row in _judged(evidence, arm)]
    body: list[Markup | None] = [_hash(evidence)]
    if judged:
        body += [_scatter(judged, look), _table(judged, look), _unpredicted(evidence)]
    else:
        body.append(absent("No arm carries a prediction, so there is nothing to compare."))
    body += [step_parts(evidence), arm_order(evidence, look), finals(evidence, look)]
    return Section(anchor="predictions", title="Predicted against measured", body=join(*body))


def _judged(evidence: Evidence, arm: Arm) -> list[Judged]:
    p = arm.prediction
    if p is None:
        return []
    tokens = reading.median_of(r.get("tokens") for r in reading.crossings_of(evidence, arm.name))
    rows = [
        (_STEP, p.step_time_s, p.step_time_low_s, p.step_time_high_s,
         reading.measured_step_s(evidence, arm.name)),
        (_MEMORY, p.peak_memory_bytes, None, None,
         reading.measured_memory_bytes(evidence, arm.name)),
        (_TOKENS, p.tokens_to_target, p.tokens_to_target_low, p.tokens_to_target_high, tokens),
    ]  # fmt: skip
    return [
        Judged(
            arm=arm.name, quantity=quantity, predicted=predicted, low=low, high=high,
            measured=measured,
        )
        for quantity, predicted, low, high, measured in rows
        if predicted is not None and predicted > 0
    ]  # fmt: skip


def _hash(evidence: Evidence) -> Markup:
    if evidence.predictions_hash is None:
        return paragraph("No predictions were written down before the first sample.")
    return paragraph(
        "Written down and hashed before the first sample: ", code(evidence.predictions_hash[:16])
    )


def _scatter(judged: list[Judged], look: Look) -> Markup:
    panels = [_panel(quantity, judged, look) for quantity in (_STEP, _MEMORY, _TOKENS)]
    drawn = [panel for panel in panels if panel.points]
    if not drawn:
        return absent("Nothing that was predicted has been measured.")
    return figure(
        lambda width: scatter_chart(drawn, width=width, label="Predicted against measured"),
        f"On the dashed line the prediction was exact; the band is ±{_BAND}. "
        "Horizontal whiskers are the range the prediction allowed for. Log scales.",
    )


def _panel(quantity: Quantity, judged: list[Judged], look: Look) -> Panel:
    scale = quantity.scale
    return Panel(
        title=quantity.title,
        unit=quantity.unit,
        points=tuple(
            Point(
                label=row.arm,
                predicted=row.predicted / scale,
                measured=row.measured / scale,
                low=None if row.low is None else row.low / scale,
                high=None if row.high is None else row.high / scale,
                colour=look.colour(row.arm),
                shape=look.shape(row.arm),
                tip=f"{row.arm}, {quantity.title.lower()}: predicted "
                f"{quantity.form(row.predicted)}, measured {quantity.form(row.measured)}",
            )
            for row in judged
            if row.quantity is quantity and row.measured
        ),
        form=wording.short,
    )


def _table(judged: list[Judged], look: Look) -> Markup:
    rows: list[list[Child]] = [
        [
            arm_name(row.arm, look.colour(row.arm), look.shape(row.arm)),
            row.quantity.title.lower(),
            row.quantity.form(row.predicted),
            _range(row),
            "not measured" if not row.measured else row.quantity.form(row.measured),
            "none" if row.error_fraction is None else wording.signed_percent(row.error_fraction),
        ]
        for row in judged
    ]
    known = [e for row in judged if (e := row.error_fraction) is not None]
    within = sum(abs(e) <= BAND for e in known)
    return join(
        paragraph(
            f"{within} of {wording.plural(len(known), 'prediction')} within "
            f"{_BAND} of the measured value."
        ),
        table(
            ["arm", "quantity", "predicted", "believed between", "measured", "error"],
            rows,
            name="Predicted beside measured (medians over runs); error = predicted / measured - 1",
            words={1},
        ),
    )


def _range(row: Judged) -> str:
    if row.low is None or row.high is None:
        return "not stated"
    return f"{row.quantity.form(row.low)} and {row.quantity.form(row.high)}"


def _unpredicted(evidence: Evidence) -> Markup | None:
    names = [arm.name for arm in evidence.arms if arm.prediction is None]
    if not names:
        return None
    return absent(f"Without a prediction, as commands are: {', '.join(names)}.")
