"""The support matrix as text: a row a lever, a column an engine."""

from __future__ import annotations

from twofold.engines.export.matrix import (
    SERVING_TRIALS,
    TRIALS,
    serving_support,
    support_matrix,
    tried,
)
from twofold.engines.export.registry import ENGINES
from twofold.engines.export.vllm import IGNORES, VLLM_VERSION
from twofold.report.table import aligned


def engines_text() -> str:
    """`yes` where every value that was tried can be expressed, `-` where none; else those that
    can, and `own` where the engine settles it by itself."""
    matrix = support_matrix()
    head = ["lever", *(engine.title for engine in ENGINES.values())]
    rows = [head]
    for lever, trials in TRIALS.items():
        cells = [
            _cell(matrix[name][lever], tried(trials), own=lever in engine.ignores)
            for name, engine in ENGINES.items()
        ]
        rows.append([lever, *cells])
    serving = serving_support()
    served = [["lever (serving)", "vLLM"]]
    served += [
        [lever, _cell(serving[lever], tried(trials), own=lever in IGNORES)]
        for lever, trials in SERVING_TRIALS.items()
    ]
    versions = [f"{engine.title} {engine.version}" for engine in ENGINES.values()]
    versions.append(f"vLLM {VLLM_VERSION}")
    left = tuple(range(len(head)))
    return "\n".join(
        [
            *aligned(rows, left=left),
            "",
            *aligned(served, left=(0, 1)),
            "",
            "own: the engine settles it by itself, whatever the plan says",
            "options as of " + ", ".join(versions),
            "next: twofold export plan.json --to ENGINE",
        ]
    )


def _cell(values: tuple[str, ...], all_values: tuple[str, ...], *, own: bool) -> str:
    if own:
        return "own"
    if not values:
        return "-"
    return "yes" if values == all_values else " ".join(values)
