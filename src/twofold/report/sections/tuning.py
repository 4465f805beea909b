"""The tuning bill: what was tried for every arm, and what it cost."""

from __future__ import annotations

import math
from collections import defaultdict
from statistics import mean
from typing import Any

from twofold.evidence.records import Evidence
from twofold.report import wording
from twofold.report.blocks import Section, absent, arm_name, paragraph, table
from twofold.report.markup import Child, Markup, join, tag
from twofold.report.palette import NUM_HEATS, Look

_READING = (
    "Scores by learning rate (down) and batch in sequences (across): held-out loss of the tune "
    "part, lower is better. The fullest blue is best and ★ was chosen."
)

Cell = tuple[float, float]
"""(learning rate, global batch)."""


def render(evidence: Evidence, look: Look) -> Section:
    arms = (evidence.tuning or {}).get("arms") or {}
    if not arms:
        body: Markup = absent(
            "No tuning is recorded: the recipes were given, and nothing says how much was tried."
        )
    else:
        grids = [_grid(name, arm) for name, arm in arms.items()]
        body = join(
            _bill(evidence, arms, look),
            paragraph(_READING),
            tag("div", grids, class_="grids"),
        )
    return Section(anchor="tuning", title="Tuning bill", body=body)


def _bill(evidence: Evidence, arms: dict[str, Any], look: Look) -> Markup:
    rows: list[list[Child]] = []
    for name, arm in arms.items():
        runs = arm.get("runs") or []
        # An arm with several candidates has a grid each, "arm: model, recipe".
        owner = name.partition(":")[0]
        rows.append(
            [
                arm_name(name, look.colour(owner), look.shape(owner)),
                str(len(_cells(runs))),
                str(len(runs)),
                wording.count(sum(run.get("tokens") or 0 for run in runs)),
                wording.seconds(_cost_s(runs)),
                "edge of the grid" if _at_edge(arm) else "interior",
            ]
        )
    return join(
        paragraph(_total(evidence.tuning or {}, arms)),
        table(
            ["arm", "settings tried", "runs", "tokens", "training time", "optimum"],
            rows,
            name="What was tried for each arm",
            words={5},
        ),
    )


def _total(tuning: dict[str, Any], arms: dict[str, Any]) -> str:
    runs = [run for arm in arms.values() for run in arm.get("runs") or []]
    num_runs = tuning.get("num_runs") or len(runs)
    words = (
        f"{wording.plural(num_runs, 'tuning run')} took {wording.seconds(_cost_s(runs))} of "
        "training on the grids below"
    )
    if tuning.get("wall_s"):
        words += f", {wording.seconds(tuning['wall_s'])} in all"
    if tuning.get("machine"):
        words += f", on {tuning['machine']}"
    seeds = ", ".join(str(seed) for seed in tuning.get("seeds") or [])
    return (
        f"{words}. This is not on the clock of the claim. Every arm is tuned the same way, on the "
        f"tune part of the text{f', with seeds {seeds}, which no proof uses' if seeds else ''}."
    )


def _cost_s(runs: list[dict[str, Any]]) -> float:
    return math.fsum(run.get("train_s") or 0.0 for run in runs)


def _cells(runs: list[dict[str, Any]]) -> dict[Cell, float]:
    """Mean score over seeds by setting; a lower score is better."""
    scores: dict[Cell, list[float]] = defaultdict(list)
    for run in runs:
        score = run.get("score", run.get("tune_loss"))
        rate, batch = run.get("learning_rate"), run.get("global_batch")
        if rate is not None and batch is not None:
            scores[rate, batch].append(math.inf if score is None else float(score))
    return {cell: mean(values) for cell, values in scores.items()}


def _winner(arm: dict[str, Any]) -> Cell | None:
    winner = arm.get("winner") or {}
    if "learning_rate" in winner and "global_batch" in winner:
        return winner["learning_rate"], winner["global_batch"]
    return None


def _at_edge(arm: dict[str, Any]) -> bool:
    winner = _winner(arm)
    cells = _cells(arm.get("runs") or [])
    if winner is None or not cells:
        return False
    rates, batches = sorted({c[0] for c in cells}), sorted({c[1] for c in cells})
    return winner[0] in (rates[0], rates[-1]) or winner[1] in (batches[0], batches[-1])


def _grid(name: str, arm: dict[str, Any]) -> Markup:
    """Scores as a heat-table: learning rates down, batches across, the winner marked."""
    cells = _cells(arm.get("runs") or [])
    if not cells:
        return absent(f"No tuning runs are recorded for {name}.")
    rates, batches = sorted({c[0] for c in cells}), sorted({c[1] for c in cells})
    finite = [score for score in cells.values() if math.isfinite(score)]
    best, worst = (min(finite), max(finite)) if finite else (0.0, 0.0)
    winner = _winner(arm)
    rows: list[list[Child]] = [
        [
            wording.setting(rate),
            *(
                _heat(cells.get((rate, batch)), best, worst, (rate, batch) == winner)
                for batch in batches
            ),
        ]
        for rate in rates
    ]
    return table(
        ["rate \\ batch", *(wording.setting(batch) for batch in batches)],
        rows,
        name=name,
        class_="heat",
    )


def _heat(score: float | None, best: float, worst: float, chosen: bool) -> Markup:
    if score is None:
        return tag("span", "not tried", class_="cell none")
    if not math.isfinite(score):
        return tag("span", "diverged", class_="cell none")
    near = 1.0 if worst == best else 1 - (score - best) / (worst - best)
    words = f"{wording.digits(score)}{' ★' if chosen else ''}"
    heat = f"heat-{round(near * (NUM_HEATS - 1))}"
    return tag("span", words, class_=f"cell {heat}{' chosen' if chosen else ''}")
