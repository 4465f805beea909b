"""`twofold validate` on a terminal."""

from __future__ import annotations

import math
from typing import Any

from twofold.calibrate.refine import Refinement

_CUTS = (
    ("by_accelerator", "accelerator"),
    ("by_source", "source"),
    ("by_arch", "architecture"),
    ("by_precision", "precision"),
)
_MOST_LINES = 12


def validation_text(report: dict[str, Any]) -> str:
    """Cuts first, the whole last."""
    lines = []
    for key, title in _CUTS:
        blocks = sorted(report[key].items(), key=lambda item: -item[1]["groups"])
        lines.append(f"{title:24s} {'groups':>6s} {'median':>7s} {'p90':>7s} {'bias':>7s}")
        for name, block in blocks[:_MOST_LINES]:
            lines.append(
                f"{name[:24]:24s} {block['groups']:6d} {block['median_abs_log_error']:7.3f} "
                f"{block['p90_abs_log_error']:7.3f} {block['bias']:+7.3f}"
            )
        if len(blocks) > _MOST_LINES:
            lines.append(f"  and {len(blocks) - _MOST_LINES} more (--json has all)")
        lines.append("")
    lines += _counted("assumed where a row does not say", report["assumed"])
    lines += _counted("not answered", report["refused"])
    lines += _ranking(report)
    lines.append(
        f"{report['rows']} rows, {report['answered']} answered "
        f"({report['answered_fraction']:.0%} of those that say enough), {report['groups']} groups"
    )
    if report["groups"]:
        lines.append(
            f"median error {report['median_abs_log_error']:.1%}, 90th percentile "
            f"{report['p90_abs_log_error']:.1%}, bias {report['bias']:+.1%} (of ln time); the 90 % "
            f"interval (a factor {math.sqrt(report['interval_width']):.2f} either way) held "
            f"{report['coverage_90']:.0%}"
        )
    return "\n".join(lines)


def refinement_text(refined: Refinement) -> str:
    """What the user's own runs changed."""
    return "\n".join(
        [
            f"{refined.num_runs} measured runs: this site takes {refined.pace:.2f} times what the "
            "published runs say",
            f"interval: a factor {math.exp(refined.half_width_before):.2f} either way before, "
            f"{math.exp(refined.half_width_after):.2f} now",
            "",
            f"written: {refined.output}",
            f"next: twofold plan MODEL --fleet SPEC --calibration {refined.output}",
        ]
    )


def _counted(title: str, counts: dict[str, int]) -> list[str]:
    if not counts:
        return []
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    return [f"{title}:", *(f"  {count:5d}  {what}" for what, count in ordered), ""]


def _ranking(report: dict[str, Any]) -> list[str]:
    if not report.get("ranked_groups"):
        return []
    rank = report["rank_correlation"]
    return [
        f"plans of one workload: {report['ranked_groups']} sets, rank correlation "
        f"{'unknown' if rank is None else format(rank, '.2f')}, regret of the predicted best "
        f"{report['pick_regret_mean']:.1%} (worst {report['pick_regret_max']:.0%})"
    ]
