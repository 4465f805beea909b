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
        seen = report["from_fitted_sources_fraction"]
        if seen:
            lines.append(f"{seen:.0%} of the rows are from tables that the fit has seen: their")
            lines.append("errors are smaller than those of unseen ones (docs/validation.md)")
        middle, far = (
            math.exp(report[name]) for name in ("median_abs_log_error", "p90_abs_log_error")
        )
        lines.append(
            f"median error a factor {middle:.3f}, 90th percentile {far:.3f}, bias "
            f"{math.exp(report['bias']):.3f}; the 90 % interval (a factor "
            f"{math.sqrt(report['interval_width']):.2f} either way) held "
            f"{report['coverage_90']:.0%}"
        )
    return "\n".join(lines)


def refinement_text(refined: Refinement) -> str:
    """What the user's own runs changed."""
    lines = [
        f"{die.die}: {die.num_runs} measured run{'s' if die.num_runs > 1 else ''}; this site takes "
        f"{die.pace:.2f} times what the published runs say; interval a factor "
        f"{math.exp(die.half_width_before):.2f} either way before, "
        f"{math.exp(die.half_width_after):.2f} now"
        for die in refined.dies
    ]
    return "\n".join(
        [
            *lines,
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
