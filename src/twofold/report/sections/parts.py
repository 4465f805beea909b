"""Predicted parts of a whole, stacked, beside what was measured: of a step and of memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from twofold.evidence.records import Evidence
from twofold.report import reading, wording
from twofold.report.blocks import Section, absent, figure, heading, swatch, table
from twofold.report.figures.stack import Stack, stack_chart
from twofold.report.markup import Child, Markup, join, tag
from twofold.report.palette import NUM_PART_COLOURS, Look


def step_parts(evidence: Evidence) -> Markup:
    """Where the predicted step goes, for the section on predictions."""
    title = heading("Where a step goes")
    stacks = _stacks(
        (arm.name, arm.prediction.step_parts_s, reading.measured_step_s(evidence, arm.name))
        for arm in evidence.arms
        if arm.prediction is not None
    )
    if not stacks:
        return join(title, absent("No arm's step was predicted in parts."))
    chart = _figure(
        stacks,
        wording.seconds,
        1e-3,
        axis="milliseconds a step",
        label="Predicted parts of a step beside the measured step",
        caption="Predicted parts stacked; the dark line is the measured median step.",
    )
    return join(title, chart, _table(stacks, wording.seconds, "Predicted parts of a step"))


def render_memory(evidence: Evidence, look: Look) -> Section:
    """`look` is not needed: parts have colours of their own."""
    stacks = _stacks(
        (
            arm.name,
            arm.prediction.memory_parts_bytes,
            reading.measured_memory_bytes(evidence, arm.name),
        )
        for arm in evidence.arms
        if arm.prediction is not None
    )
    without = _measured_only(evidence, {s.label for s in stacks})
    if not stacks:
        body = join(absent("No arm's memory was predicted in parts."), without)
    else:
        chart = _figure(
            stacks,
            wording.size,
            2.0**20,
            axis="MiB",
            label="Predicted parts of peak memory beside the measured peak",
            caption="Predicted parts stacked; the dark line is the measured peak of the process.",
        )
        body = join(chart, _table(stacks, wording.size, "Predicted parts of peak memory"), without)
    return Section(anchor="memory", title="Memory", body=body)


def _measured_only(evidence: Evidence, drawn: set[str]) -> Markup | None:
    """Peaks of arms without a prediction, which have no stack to stand beside."""
    words = []
    for arm in evidence.arms:
        peak_bytes = reading.measured_memory_bytes(evidence, arm.name)
        if arm.name not in drawn:
            peak = "not measured" if peak_bytes is None else wording.size(peak_bytes)
            words.append(f"{arm.name} {peak}")
    return absent(f"Measured, without predicted parts: {'; '.join(words)}.") if words else None


def _stacks(rows: Iterable[tuple[str, dict[str, float], float | None]]) -> list[Stack]:
    return [
        Stack(label=name, parts=tuple((k, v) for k, v in parts.items() if v > 0), measured=measured)
        for name, parts, measured in rows
        if any(v > 0 for v in parts.values())
    ]


def _figure(
    stacks: Sequence[Stack],
    form: Callable[[float], str],
    unit: float,
    *,
    axis: str,
    label: str,
    caption: str,
) -> Markup:
    colours = _colours(stacks)
    return figure(
        lambda width: stack_chart(
            stacks,
            form,
            unit,
            width=width,
            axis=axis,
            label=label,
            colours=lambda name: colours[name],
        ),
        tag("span", [_key(name, colour) for name, colour in colours.items()], class_="keys"),
        caption,
    )


def _key(name: str, colour: str) -> Markup:
    return tag("span", swatch(colour, "square"), name, class_="key")


def _colours(stacks: Sequence[Stack]) -> dict[str, str]:
    """Part -> colour class, the same for all arms of a figure."""
    names = dict.fromkeys(name for stack in stacks for name, _ in stack.parts)
    return {name: f"part-{i % NUM_PART_COLOURS}" for i, name in enumerate(names)}


def _table(stacks: Sequence[Stack], form: Callable[[float], str], name: str) -> Markup:
    parts = list(dict.fromkeys(part for stack in stacks for part, _ in stack.parts))
    rows: list[list[Child]] = []
    for stack in stacks:
        known = dict(stack.parts)
        rows.append(
            [
                wording.clip(stack.label),
                *(form(known[part]) if part in known else "none" for part in parts),
                form(stack.predicted),
                "not measured" if stack.measured is None else form(stack.measured),
            ]
        )
    return table(["arm", *parts, "predicted", "measured"], rows, name=name)
