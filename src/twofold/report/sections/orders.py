"""The order written down beforehand, of arms and of each arm's plans, beside the order measured."""

from __future__ import annotations

from typing import Any

from twofold.evidence.records import Evidence
from twofold.report import reading, wording
from twofold.report.blocks import absent, arm_name, heading, paragraph, table
from twofold.report.markup import Child, Markup, join
from twofold.report.palette import Look


def arm_order(evidence: Evidence, look: Look) -> Markup:
    """Arms by predicted time per token, beside the time per token they took."""
    title = heading("The order of arms, predicted and measured")
    predicted = [str(row["arm"]) for row in evidence.predicted_order if "arm" in row]
    if not predicted:
        return join(title, absent("No order of the arms was written down beforehand."))
    pace_s = {name: reading.measured_token_s(evidence, name) for name in predicted}
    known = {name: value for name, value in pace_s.items() if value is not None}
    measured = sorted(known, key=lambda name: known[name])
    rows: list[list[Child]] = [
        [
            arm_name(str(row["arm"]), look.colour(str(row["arm"])), look.shape(str(row["arm"]))),
            str(place),
            _seconds(row.get("predicted_s_per_token")),
            str(measured.index(str(row["arm"])) + 1) if str(row["arm"]) in known else "none",
            _seconds(pace_s[str(row["arm"])]),
        ]
        for place, row in enumerate((r for r in evidence.predicted_order if "arm" in r), start=1)
    ]
    return join(
        title,
        table(
            ["arm", "predicted place", "predicted per token", "measured place",
             "measured per token"],
            rows,
            name="Arms from the fastest step per token to the slowest",
        ),
        paragraph(_agreement([name for name in predicted if name in known], measured)),
    )  # fmt: skip


def finals(evidence: Evidence, look: Look) -> Markup:
    """The plans that were timed for each arm, in their predicted order."""
    title = heading("The finals: plans timed before one was chosen")
    if not evidence.finals:
        return join(title, absent("No finals were run: no arm had a plan to choose."))
    rows: list[list[Child]] = []
    for row in evidence.finals:
        arm = str(row.get("arm", "not named"))
        rows.append(
            [
                arm_name(arm, look.colour(arm), look.shape(arm)),
                str(row.get("plan", "not named")),
                _seconds(row.get("predicted_step_time_s")),
                _seconds(row.get("measured_step_time_s")),
                _error(row),
                _seconds(row.get("measured_startup_s")),
                _seconds(row.get("measured_run_s")),
                "★" if row.get("chosen") else "",
            ]
        )
    return join(
        title,
        table(
            ["arm", "plan", "predicted step", "measured step", "error", "start-up", "whole run",
             "chosen"],
            rows,
            name="Finalists in predicted order; the shortest whole run, start-up included, wins",
            words={1},
        ),
        paragraph(_places(evidence)),
    )  # fmt: skip


def _agreement(predicted: list[str], measured: list[str]) -> str:
    if not measured:
        return "None of these arms was measured."
    if predicted == measured:
        return "They came in as predicted."
    return f"Measured, the order is {', '.join(wording.clip(name) for name in measured)}."


def _places(evidence: Evidence) -> str:
    """For every arm, the predicted place of the plan that won its finals."""
    words = []
    for arm in dict.fromkeys(str(row.get("arm", "not named")) for row in evidence.finals):
        rows = [row for row in evidence.finals if str(row.get("arm", "not named")) == arm]
        won = [place for place, row in enumerate(rows, start=1) if row.get("chosen")]
        if won:
            words.append(f"{wording.clip(arm)} {won[0]} of {len(rows)}")
    return f"Predicted place of the plan that won: {'; '.join(words) or 'not recorded'}."


def _error(row: dict[str, Any]) -> str:
    predicted, measured = row.get("predicted_step_time_s"), row.get("measured_step_time_s")
    if not predicted or not measured:
        return "none"
    return wording.signed_percent(predicted / measured - 1)


def _seconds(value: float | None) -> str:
    return "not known" if value is None else wording.seconds(value)
