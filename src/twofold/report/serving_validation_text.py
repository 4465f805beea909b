"""`twofold validate` of serving rows on a terminal."""

from __future__ import annotations

from typing import Any

_CUTS = (
    ("by_vendor", "vendor"),
    ("by_engine", "engine"),
    ("by_mode", "mode"),
    ("by_load", "load"),
    ("by_accelerator", "accelerator"),
    ("by_source", "source"),
)
METRIC_NAMES = {"tpot": "TPOT", "ttft": "TTFT", "tokens": "output tokens/s"}
_MOST_LINES = 14


def serving_validation_text(report: dict[str, Any]) -> str:
    """Cuts first, the whole last. Errors are medians over curves."""
    lines: list[str] = []
    for key, title in _CUTS:
        lines.append(f"{title:18s}" + "".join(f"{name:>24s}" for name in METRIC_NAMES.values()))
        blocks = sorted(report[key].items(), key=lambda item: -_curves(item[1]))
        for name, block in blocks[:_MOST_LINES]:
            lines.append(f"{name[:18]:18s}" + "".join(_cell(block.get(m)) for m in METRIC_NAMES))
        lines.append("")
    lines += _counted("assumed where a row does not say", report["assumed"])
    lines += _counted("not answered", report["refused"])
    for metric, tail in report["tails"].items():
        lines.append(
            f"published p99 of {METRIC_NAMES[metric]} is {tail['p99_over_p50']:.2f} times its p50 "
            f"in the median of {tail['rows']} rows (nine in ten below {tail['p90_of_it']:.1f}); "
            "the middle is predicted here, tails by simulation"
        )
    lines.append(
        f"{report['rows']} rows, {report['answered']} answered "
        f"({report['answered_fraction']:.0%} of those that say enough)"
    )
    seen = report["from_fitted_sources_fraction"]
    if seen:
        lines.append(f"{seen:.0%} of them are from tables that the fit has seen")
    for metric, name in METRIC_NAMES.items():
        if metric in report:
            lines.append(f"{name}: {metric_summary(report[metric])}")
    return "\n".join(lines)


def metric_summary(block: dict[str, Any]) -> str:
    """One metric over all curves, in a line."""
    rank = block["rank_correlation"]
    ranked = (
        ""
        if rank is None
        else f"; inside {block['ranked_curves']} curves rank correlation {rank:.2f}, "
        f"regret of the predicted best {block['pick_regret_mean']:.1%}"
    )
    return (
        f"median error {block['median']:.1%} over {block['curves']} curves "
        f"({block['median_over_rows']:.1%} over {block['rows']} rows), nine in ten below "
        f"{block['p90']:.0%}, bias {block['bias']:+.1%}{ranked}"
    )


def _curves(block: dict[str, Any]) -> int:
    return max((scores["curves"] for scores in block.values()), default=0)


def _cell(scores: dict[str, Any] | None) -> str:
    if scores is None:
        return f"{'':24s}"
    return f"{scores['median']:>12.1%} of {scores['curves']:4d} crv"


def _counted(title: str, counts: dict[str, int]) -> list[str]:
    if not counts:
        return []
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    return [f"{title}:", *(f"  {count:5d}  {what}" for what, count in ordered), ""]
