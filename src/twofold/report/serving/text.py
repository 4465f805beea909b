"""The claims of a proof of serving for a terminal, each target apart, the claimed one last."""

from __future__ import annotations

import shlex

from twofold.evidence.records import Ratio
from twofold.evidence.serving.records import ServingDerived, ServingEvidence, ServingResult
from twofold.report.table import aligned
from twofold.units import format_seconds


def serving_claim_text(evidence: ServingEvidence, report: str, evidence_path: str) -> str:
    derived = evidence.derived
    assert derived is not None
    lines: list[str] = []
    if evidence.smoke:
        lines += ["SMOKE TEST: one block; nothing below is evidence", ""]
    if derived.noise_floor is not None:
        floor = derived.noise_floor.ratio
        lines += [f"noise (A/A)  {_ratio(floor)}; {len(floor.pairs)} pairs", ""]
    lines += _goodputs(evidence)
    lines += ["", *_causes(derived)]
    lines += _compared(derived)
    ordered = sorted(evidence.targets, key=lambda t: t.name == evidence.claimed)
    for named in ordered:
        lines += ["", _target(evidence, named.name)]
        for result in derived.results:
            if result.target == named.name:
                lines += _result(result, claimed=named.name == evidence.claimed)
    lines += ["", f"report: {report}"]
    lines.append(f"re-check: twofold prove --check {shlex.quote(evidence_path)}")
    return "\n".join(lines)


def _target(evidence: ServingEvidence, name: str) -> str:
    named = next(t for t in evidence.targets if t.name == name)
    limits = named.targets
    assert limits.ttft_s is not None
    assert limits.tpot_s is not None
    return (
        f"{name} target{' (claimed)' if name == evidence.claimed else ''}: {limits.attainment:.0%}"
        f" within TTFT {format_seconds(limits.ttft_s)} and TPOT {format_seconds(limits.tpot_s)}, "
        f"{named.times_unloaded:g}x one user alone on '{evidence.comparisons[0][1]}'"
    )


def _goodputs(evidence: ServingEvidence) -> list[str]:
    """Requests/s within each target, the geometric mean over blocks."""
    derived = evidence.derived
    assert derived is not None
    names = [t.name for t in evidence.targets]
    rows = [["goodput, requests/s", *names]]
    for arm in evidence.arms:
        if not arm.every_block:
            continue
        cells = []
        for name in names:
            found = [r for r in derived.goodputs if r.arm == arm.name and r.target == name]
            known = [r.value for r in found if r.value is not None]
            if len(known) < len(found) or not known:
                highest = max((r.high for r in found if r.value is None and r.high), default=0.0)
                cells.append(f"under {highest:.3g}")
                continue
            product = 1.0
            for value in known:
                product *= value ** (1 / len(known))
            open_ended = any(r.high is None for r in found)
            cells.append(f"{'over ' if open_ended else ''}{product:.3g}")
        rows.append([f"  {arm.name}", *cells])
    return aligned(rows)


def _causes(derived: ServingDerived) -> list[str]:
    if not derived.attribution:
        return [f"levers: {derived.attribution_note}"]
    parts = "  x  ".join(f"{f.name} {f.value:.2f}x" for f in derived.attribution)
    return [f"levers  {parts}   ({derived.attribution_note})"]


def _compared(derived: ServingDerived) -> list[str]:
    """The worst error of each quantity."""
    lines = []
    for quantity in ("output tokens/s", "TPOT", "TTFT", "goodput"):
        rows = [row for row in derived.compared if row.quantity == quantity]
        if not rows:
            continue
        errors = sorted((row.predicted / row.measured - 1 for row in rows), key=abs)
        lines.append(
            f"predicted {quantity}: median error {errors[len(errors) // 2]:+.0%}, worst "
            f"{errors[-1]:+.0%}, over {len(rows)} arms and rates"
        )
    return lines


def _result(result: ServingResult, *, claimed: bool) -> list[str]:
    against = f"'{result.arm}' against '{result.baseline}'"
    if result.ratio is None:
        return [f"  no ratio   {against}", f"    {result.verdict.upper()}: {result.reason}"]
    least = "at least " if result.lower_bound else ""
    lines = [f"  goodput {least}{_ratio(result.ratio)}   {against}"]
    if result.goodput_per_s is not None and result.baseline_per_s is not None:
        absolute = f"    {result.goodput_per_s:.3g} against {result.baseline_per_s:.3g} requests/s"
        if result.predicted is not None:
            error = result.predicted / result.ratio.value - 1
            absolute += f"; predicted {result.predicted:.2f}x, error {error:+.0%}"
        lines.append(absolute)
    word = result.verdict.upper() if claimed else result.verdict
    return [*lines, f"    {word}: {result.reason}"]


def _ratio(ratio: Ratio) -> str:
    if ratio.low is None or ratio.high is None:
        return f"{ratio.value:.2f}x (no interval)"
    return f"{ratio.value:.2f}x (95 % interval {ratio.low:.2f}-{ratio.high:.2f})"
